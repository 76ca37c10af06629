/**
 * Updates the page when the receiver reports a change, and counts down the window's time. The server renders the page and
 * this script only replaces it, so it never builds HTML from a name that a peer chose.
 *
 * Focus, ticked boxes and open details survive an update. A tick belongs to one fingerprint, so a card that moves under
 * the pointer cannot be approved by accident.
 */
// @ts-nocheck: a browser runs it, and the project does not have a browser's types.
const live = document.getElementById('live');
const news = document.getElementById('news');
const shown = new Set(['snapshot', 'window', 'requested', 'withdrawn', 'approved', 'revoked', 'session']);
const againMs = 2_000;
let deadline = 0;
let updates = Promise.resolve();

async function update() {
  const answer = await fetch('/').catch(() => undefined);
  if (!answer?.ok) {
    news.textContent = 'The build server does not answer. This page may be out of date.';
    return;
  }
  const fresh = new DOMParser().parseFromString(await answer.text(), 'text/html').getElementById('live');
  const focused = live.contains(document.activeElement) ? document.activeElement.id : '';
  const find = ({ id }) => fresh.querySelector(`#${CSS.escape(id)}`);
  for (const box of live.querySelectorAll('input:checked')) find(box)?.toggleAttribute('checked', true);
  for (const details of live.querySelectorAll('details[open]')) find(details)?.toggleAttribute('open', true);
  live.replaceChildren(...fresh.childNodes);
  if (focused !== '') (document.getElementById(focused) ?? document.getElementById('requests')).focus();
  const waiting = live.querySelectorAll('.request').length;
  const text =
    waiting === 0
      ? ''
      : waiting === 1
        ? '1 dashboard requests pairing.'
        : `${waiting} dashboards request pairing.`;
  if (news.textContent !== text) news.textContent = text;
  readTime();
}

function updateSoon() {
  updates = updates.then(update);
}

/** Reconnects when closed. A browser that sends no password with a WebSocket still gets the page every time. */
function follow() {
  const socket = new WebSocket(`${location.origin.replace(/^http/, 'ws')}/esphome-receiver/events`);
  socket.addEventListener('message', ({ data }) => {
    if (shown.has(JSON.parse(data).type)) updateSoon();
  });
  socket.addEventListener('close', () => {
    updateSoon();
    setTimeout(follow, againMs);
  });
}

function readTime() {
  const left = document.getElementById('left');
  if (left) deadline = performance.now() + Number(left.dataset.ms);
}

function tick() {
  const left = document.getElementById('left');
  if (!left) return;
  const seconds = Math.max(0, Math.ceil((deadline - performance.now()) / 1000));
  left.textContent = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, '0')}`;
}

readTime();
setInterval(tick, 1_000);
follow();
