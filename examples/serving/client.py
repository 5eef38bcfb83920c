"""Asks a server that speaks OpenAI's API, `transformers serve` or vLLM, about a picture.

python client.py steered "What is this?" --image picture.png
python client.py steered "How are you?" --url http://localhost:8001/v1
"""

import argparse
import base64
import mimetypes
from pathlib import Path
from typing import Any

from openai import OpenAI, OpenAIError


def message(text: str, image: Path | None) -> dict[str, Any]:
    """A user's turn, the picture before the text."""
    content: list[dict[str, Any]] = []
    if image is not None:
        kind = mimetypes.guess_type(image.name)[0] or "image/png"
        data = base64.b64encode(image.read_bytes()).decode()
        content.append({"type": "image_url", "image_url": {"url": f"data:{kind};base64,{data}"}})
    content.append({"type": "text", "text": text})
    return {"role": "user", "content": content}


def main() -> None:
    """Print the answer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="name under which the server knows the checkpoint")
    parser.add_argument("text")
    parser.add_argument("--image", type=Path)
    parser.add_argument("--url", default="http://localhost:8000/v1")
    parser.add_argument("--max-tokens", type=int, default=64)
    asked = parser.parse_args()
    messages: Any = [message(asked.text, asked.image)]
    client = OpenAI(base_url=asked.url, api_key="unused")
    try:
        answer = client.chat.completions.create(
            model=asked.model, messages=messages, max_tokens=asked.max_tokens, temperature=0
        )
    except OpenAIError as error:
        raise SystemExit(f"{asked.url}: {error}") from error
    print(answer.choices[0].message.content)


if __name__ == "__main__":
    main()
