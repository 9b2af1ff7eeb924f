// What the settings page can do with JavaScript: find settings, mark what was edited, show the changes in a
// dialog before they are saved, and warn who leaves with edits. The page works without any of it.
"use strict";

document.addEventListener("DOMContentLoaded", () => {
  const bar = document.querySelector(".siteconfig-bar");
  const rows = [...document.querySelectorAll(".siteconfig-row[data-setting]")];
  if (rows.length) {
    findSettings(rows);
    showFirstError(rows);
  }
  if (bar) {
    const save = bar.querySelector("[name=_save]");
    markEdits(save.form, rows, bar);
    reviewInDialog(save.form, save, bar);
  }
});

function findSettings(rows) {
  const tools = document.querySelector(".siteconfig-tools");
  const query = tools.querySelector(".siteconfig-query");
  const onlyChanged = tools.querySelector(".siteconfig-only-changed");
  const found = tools.querySelector(".siteconfig-found");
  const texts = new Map(rows.map((row) => [row, textOf(row)]));
  const opened = new Set(); // which will be closed again

  const show = () => {
    const words = query.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of rows) {
      const differs = "differs" in row.dataset || "edited" in row.dataset;
      const matches = words.every((word) => texts.get(row).includes(word)) && (!onlyChanged.checked || differs);
      row.classList.toggle("siteconfig-hidden", !matches);
      count += matches;
    }
    const narrowed = words.length > 0 || onlyChanged.checked;
    for (const section of document.querySelectorAll(".siteconfig-section")) {
      const isEmpty = !section.querySelector(".siteconfig-row:not(.siteconfig-hidden)");
      section.classList.toggle("siteconfig-hidden", narrowed && isEmpty);
      const details = section.querySelector("details");
      if (details && narrowed && !isEmpty && !details.open) {
        details.open = true;
        opened.add(details);
      } else if (opened.has(details) && !narrowed && !details.querySelector("[data-edited]")) {
        details.open = false;
        opened.delete(details);
      }
    }
    found.textContent = count ? "" : found.dataset.none;
  };

  query.addEventListener("input", show);
  onlyChanged.addEventListener("change", show);
  query.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      query.value = "";
      show();
    } else if (event.key === "Enter") {
      event.preventDefault(); // which would save
      const first = rows.find((row) => !row.classList.contains("siteconfig-hidden"));
      controlOf(first)?.focus();
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !event.target.closest("input, select, textarea, [contenteditable]")) {
      event.preventDefault();
      query.focus();
    }
  });
  tools.hidden = false;
}

function textOf(row) {
  const label = row.querySelector("label")?.textContent ?? "";
  const help = [...row.querySelectorAll(".help:not(.siteconfig-about)")].map((one) => one.textContent).join(" ");
  const name = row.dataset.setting;
  return `${name} ${name.replaceAll("_", " ")} ${label} ${help}`.toLowerCase();
}

function showFirstError(rows) {
  const row = rows.find((one) => one.classList.contains("errors"));
  if (row) {
    controlOf(row)?.focus({ preventScroll: true });
    row.scrollIntoView({ block: "center" });
  }
}

function controlOf(row) {
  return row?.querySelector("input:not([type=hidden]), select, textarea");
}

function markEdits(form, rows, bar) {
  const output = bar.querySelector(".siteconfig-count");
  // What the server has found to be edited, or wrong, when it has sent the page back, is not for us to undo.
  const sentBack = new Set(rows.filter((row) => "edited" in row.dataset || row.classList.contains("errors")));
  let isSending = false;

  const mark = () => {
    let count = 0;
    for (const row of rows) {
      const isEdited = sentBack.has(row) || [...row.querySelectorAll("input, select, textarea")].some(isEdit);
      row.toggleAttribute("data-edited", isEdited);
      count += isEdited;
    }
    const text = count === 1 ? output.dataset.one : output.dataset.many.replace("%s", count);
    output.textContent = count ? text : "";
    return count;
  };

  form.addEventListener("input", mark);
  form.addEventListener("change", mark);
  form.addEventListener("submit", () => {
    isSending = true;
  });
  window.addEventListener("beforeunload", (event) => {
    if (!isSending && mark() > 0) {
      event.preventDefault();
    }
  });
  window.addEventListener("pageshow", () => {
    isSending = false;
    mark();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "s" && (event.ctrlKey || event.metaKey) && !event.altKey && !event.shiftKey) {
      event.preventDefault();
      form.requestSubmit(bar.querySelector("[name=_save]"));
    }
  });
}

function isEdit(control) {
  if (control.type === "checkbox" || control.type === "radio") {
    return control.checked !== control.defaultChecked;
  }
  if (control.type === "file") {
    return control.value !== "";
  }
  if (control.options) {
    const options = [...control.options];
    const first = options.some((option) => option.defaultSelected) || control.multiple ? null : options[0];
    return options.some((option) => option.selected !== (option.defaultSelected || option === first));
  }
  return control.value !== control.defaultValue;
}

// The server says what would be saved, so that what is shown is what the server makes of it.
function reviewInDialog(form, save, bar) {
  const dialog = document.querySelector(".siteconfig-dialog");
  const review = bar.querySelector(".siteconfig-review");
  const reason = bar.querySelector("[name=_reason]");

  review.addEventListener("click", async (event) => {
    event.preventDefault();
    const data = new FormData(form);
    data.append(review.name, "1");
    let changes = null;
    try {
      const response = await fetch(form.action, { method: "POST", body: data, credentials: "same-origin" });
      const page = new DOMParser().parseFromString(await response.text(), "text/html");
      const isFine = !page.querySelector(".siteconfig-row.errors, .siteconfig-conflict, .errornote");
      changes = isFine ? page.querySelector("#siteconfig-changes") : null;
    } catch {
      changes = null;
    }
    if (!changes) {
      // Errors are best shown at their fields, on the page as a whole.
      form.requestSubmit(event.target.name ? hiddenSubmit(form, review.name) : save);
      return;
    }
    dialog.replaceChildren(document.importNode(changes, true), why(reason), buttons(dialog, form, save));
    dialog.querySelectorAll("#siteconfig-changes").forEach((one) => one.removeAttribute("id"));
    dialog.showModal();
  });
}

function hiddenSubmit(form, name) {
  const button = document.createElement("button");
  button.type = "submit";
  button.name = name;
  button.value = "1";
  button.hidden = true;
  form.append(button);
  return button;
}

function why(reason) {
  const label = reason.closest("label").cloneNode(true);
  const input = label.querySelector("input");
  input.removeAttribute("name");
  input.value = reason.value;
  input.addEventListener("input", () => {
    reason.value = input.value;
  });
  return label;
}

function buttons(dialog, form, save) {
  const line = document.createElement("div");
  line.className = "submit-row";
  const back = document.createElement("input");
  back.type = "button";
  back.className = "button";
  back.value = dialog.dataset.close;
  back.addEventListener("click", () => dialog.close());
  const go = document.createElement("input");
  go.type = "button";
  go.className = "button default";
  go.value = save.value;
  go.addEventListener("click", () => {
    dialog.close();
    form.requestSubmit(save);
  });
  line.append(back, go);
  return line;
}
