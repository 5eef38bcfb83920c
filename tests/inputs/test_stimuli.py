"""Neutral stimuli: uniform, seeded, and independent of how many there are."""

from mars_export.inputs.stimuli import clips, images


def colors(image):
    return {color for _, color in image.getcolors()}


def test_pictures_show_one_color_each():
    made = images(20, seed=0, size=(12, 8))
    assert {image.size for image in made} == {(12, 8)}
    assert all(len(colors(image)) == 1 for image in made)
    assert len({next(iter(colors(image))) for image in made}) > 15


def test_frames_of_a_clip_differ():
    made = clips(6, seed=0, frames=4, size=(8, 8))
    assert all(len(clip) == 4 for clip in made)
    assert all(len({next(iter(colors(frame))) for frame in clip}) > 1 for clip in made)


def test_seeds_decide():
    first, again, other = (images(3, seed, (4, 4)) for seed in (1, 1, 2))
    raw = [[image.tobytes() for image in made] for made in (first, again, other)]
    assert raw[0] == raw[1] != raw[2]
    assert [i.tobytes() for i in images(9, 1, (4, 4))[:3]] == raw[0]
    assert clips(9, 1, size=(4, 4))[2][3].tobytes() == clips(3, 1, size=(4, 4))[2][3].tobytes()
