/**
 * Brings the page up to date when something happens at the receiver, and counts the window's time down. The page is
 * made on the server, and only replaced here: no name that a peer chose is ever put together with HTML in this file.
 *
 * What a person was doing stays: where the keyboard is, what was ticked, what was opened. A tick belongs to one
 * fingerprint, so a card that moves under the pointer cannot be approved by accident.
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
    news.textContent = 'The build server does not answer. What stands below may be old.';
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
    waiting === 0 ? '' : waiting === 1 ? '1 dashboard asks to pair.' : `${waiting} dashboards ask.`;
  if (news.textContent !== text) news.textContent = text;
  readTime();
}

function updateSoon() {
  updates = updates.then(update);
}

/** Closed, it tries again; and a browser that gives no password to a socket asks for the page instead. */
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
