// What htmx leaves to do: a log that follows its end, goes on where it broke, and a page that says
// when it gets no news any more. Without scripts every page works; it is only not renewed by itself.
"use strict";

const LONGEST_LOG = 5000;
const log = document.getElementById("log");
const stale = document.getElementById("stale");

// The extension opens a stream that was refused by its first address; go on after the last line.
htmx.createEventSource = (address) => {
  const url = new URL(address, window.location.href);
  const last = log && log.lastElementChild;
  if (last) url.searchParams.set("after", last.id.replace("event-", ""));
  return new EventSource(url);
};

const toEnd = () => { log.scrollTop = log.scrollHeight; };

if (log) {
  let follows = true;
  toEnd();
  log.addEventListener("htmx:sseBeforeMessage", () => {
    follows = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  });
  log.addEventListener("htmx:sseMessage", () => {
    while (log.childElementCount > LONGEST_LOG) log.firstElementChild.remove();
    if (follows) toEnd();
  });
}

document.body.addEventListener("htmx:afterRequest", (event) => {
  stale.hidden = event.detail.successful;
});
