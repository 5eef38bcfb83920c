"use strict";
(() => {
  const { arms, rows } = JSON.parse(document.getElementById("data").textContent);
  const STEP = 100;
  const refused = new Set(["refusal", "rebuttal"]);
  const verdict = (row, arm) => (row.answers[arm] ? row.answers[arm].verdict : "");
  const changed = (row) =>
    row.answers.off && row.answers.on &&
    refused.has(verdict(row, "off")) !== refused.has(verdict(row, "on"));

  // Everything that a suite or a model wrote goes through textContent.
  const make = (tag, parent, text, className) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (className) element.className = className;
    if (parent) parent.append(element);
    return element;
  };

  const columns = [
    { name: "Request", value: (row) => row.id },
    { name: "Modality", value: (row) => row.modality, filter: true },
    { name: "Label", value: (row) => row.label, filter: true },
    { name: "Condition", value: (row) => row.condition || "as it is", filter: true },
    { name: "Suite", value: (row) => row.suite, filter: true, hidden: true },
    { name: "Category", value: (row) => row.category, filter: true, hidden: true },
    { name: "Off", value: (row) => verdict(row, "off"), filter: true },
    { name: "On", value: (row) => verdict(row, "on"), filter: true },
    { name: "Gate", value: (row) => row.gate, number: true },
    { name: "Margin", value: (row) => row.margin, number: true },
    { name: "Push", value: (row) => row.push, number: true },
  ].filter((column) => column.name === "Request" || rows.some((row) => column.value(row) !== "" && column.value(row) !== null));

  const wanted = {};
  let words = "", onlyChanged = false, sorted = null, falling = false, shown = STEP;

  const number = (column, value) => {
    if (value === null) return "–";
    if (column.name === "Margin" && value === 0) return "≤ 0";
    return column.name === "Push" ? (100 * value).toFixed(1) + " %" : value.toFixed(2);
  };

  const found = () => {
    const parts = words.toLowerCase().split(/\s+/).filter(Boolean);
    const list = rows.filter((row) => {
      for (const column of columns) {
        const choice = wanted[column.name];
        if (choice && column.value(row) !== choice) return false;
      }
      if (onlyChanged && !changed(row)) return false;
      if (!parts.length) return true;
      const text = [row.id, row.prompt, ...Object.values(row.answers).map((a) => a.text)].join("\n").toLowerCase();
      return parts.every((part) => text.includes(part));
    });
    if (sorted) {
      const value = sorted.value, sign = falling ? -1 : 1;
      list.sort((a, b) => {
        const x = value(a), y = value(b);
        if (x === null || y === null) return (x === null) - (y === null);
        return sign * (x < y ? -1 : x > y ? 1 : 0);
      });
    }
    return list;
  };

  const detail = (row) => {
    const line = make("tr"), cell = make("td", line);
    cell.colSpan = columns.length;
    const box = make("div", cell, undefined, "detail");
    const asked = make("div", box, undefined, "whole");
    make("h3", asked, ["Request", row.suite, row.category].filter(Boolean).join(", "));
    make("p", asked, row.prompt || "(no words)");
    for (const arm of arms) {
      const answer = row.answers[arm];
      if (!answer) continue;
      const part = make("div", box);
      const title = arm === "off" || arm === "on" ? `Steering ${arm}` : arm;
      make("h3", part, [title, answer.verdict, answer.harm && `judged ${answer.harm}`].filter(Boolean).join(", "));
      make("p", part, (answer.text || "(empty)") + (answer.cut ? " …" : ""));
    }
    return line;
  };

  const body = document.getElementById("body");
  const visible = columns.filter((column) => !column.hidden);
  const draw = () => {
    const list = found();
    body.replaceChildren();
    for (const row of list.slice(0, shown)) {
      const line = make("tr", body, undefined, changed(row) ? "changed" : "");
      for (const column of visible) {
        const cell = make("td", line, undefined, column.number ? "number" : "");
        const value = column.value(row);
        if (column.name === "Request") {
          const button = make("button", cell, value, "open");
          button.type = "button";
          button.setAttribute("aria-expanded", "false");
          let below = null;
          button.addEventListener("click", () => {
            if (below) below.remove();
            below = below ? null : detail(row);
            if (below) line.after(below);
            button.setAttribute("aria-expanded", String(Boolean(below)));
          });
        } else if (column.number) cell.textContent = number(column, value);
        else make("span", cell, value, column.name === "Label" ? `label-${row.label}` : "");
      }
    }
    const all = rows.length;
    document.getElementById("count").textContent =
      `${list.length} of ${all} requests` +
      (list.length > shown ? `, the first ${shown} shown` : "") +
      `; refused with steering off: ${list.filter((r) => refused.has(verdict(r, "off"))).length}, on: ${list.filter((r) => refused.has(verdict(r, "on"))).length}`;
    document.getElementById("more").hidden = list.length <= shown;
  };
  const again = () => { shown = STEP; draw(); };

  const form = document.getElementById("filters"), selects = {};
  form.addEventListener("submit", (event) => event.preventDefault());
  const search = make("input", make("label", form, "Words in request or answer"));
  search.type = "search";
  search.addEventListener("input", () => { words = search.value; again(); });
  for (const column of columns.filter((c) => c.filter)) {
    const values = [...new Set(rows.map(column.value))].filter(Boolean).sort();
    if (values.length < 2) continue;
    const select = make("select", make("label", form, column.name));
    make("option", select, "all").value = "";
    for (const value of values) make("option", select, value).value = value;
    select.addEventListener("change", () => { wanted[column.name] = select.value; again(); });
    selects[column.name] = select;
  }
  const check = make("label", form, undefined, "check"), box = make("input", check);
  box.type = "checkbox";
  check.append("changed by steering");
  box.addEventListener("change", () => { onlyChanged = box.checked; again(); });
  const clear = make("button", form, "Clear");
  clear.id = "clear";
  clear.type = "button";
  const choose = (choices) => {
    for (const [name, select] of Object.entries(selects)) select.value = wanted[name] = choices[name] || "";
    search.value = words = "";
    box.checked = onlyChanged = false;
    again();
  };
  clear.addEventListener("click", () => choose({}));

  for (const column of visible) {
    const head = make("th", document.getElementById("head"), undefined, column.number ? "number" : "");
    head.scope = "col";
    const button = make("button", head, column.name);
    button.type = "button";
    button.addEventListener("click", () => {
      falling = sorted === column ? !falling : Boolean(column.number);
      sorted = column;
      for (const other of head.parentElement.children) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      again();
    });
  }
  for (const kind of document.querySelectorAll("button.kind"))
    kind.addEventListener("click", () => {
      choose({ Modality: kind.dataset.modality, Label: kind.dataset.label, Condition: "as it is" });
      form.scrollIntoView({ behavior: "smooth" });
    });
  document.getElementById("more").addEventListener("click", () => { shown += 5 * STEP; draw(); });
  draw();
})();
