/**
 * Plays both people, one at the page of the build server and one at the other dashboard, from the closed window to the
 * revoked pairing. Each step checks what both screens show.
 */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';

import { say } from '../start/screen.js';
import { createPerson, readTerminal, type Card, type Person, type Shown } from './person.js';
import { openTerminal, type Terminal } from './processes.js';

/** Four lines below a title: pictures, words, and the two halves of the whole. */
const four = String.raw`.*:\n {2}(.+)\n {2}(.+)\n {2}(.+)\n {2}(.+)\n`;
const ownLines = new RegExp(`own fingerprint${four}`);
const previewLines = new RegExp(`build server at${four}`);

interface Dashboard extends Terminal {
  readonly own: Shown;
  /** What it was shown by the build server. */
  readonly previewed: Shown;
}

/** Throws if a screen does not show what it must. */
export async function playOnce(work: string, esphome: readonly string[]): Promise<void> {
  const terminals: Terminal[] = [];
  try {
    await play(work, esphome, terminals);
  } finally {
    await Promise.all(terminals.map((terminal) => terminal.stop()));
  }
}

async function play(work: string, esphome: readonly string[], terminals: Terminal[]): Promise<void> {
  function open(...[name, program, args]: Parameters<typeof openTerminal>): Terminal {
    const terminal = openTerminal(name, program, args);
    terminals.push(terminal);
    return terminal;
  }
  say('1', 'Start the build server and two dashboards: Upstairs, and an impostor with the same name and id');
  const home = join(work, 'server');
  await mkdir(home);
  const server = open('server', 'host.ts', [home, '--port', '0', '--link-port', '0', ...esphome]);
  const [, linkPort = ''] = await server.reads(/Peer link: 127\.0\.0\.1:(\d+)/);
  const [, url = '', password = ''] = await server.reads(/Page: (\S+) \(.*password (\S+)\)/);
  const person = createPerson(url, password);
  const start = (name: string, ...more: string[]): Terminal =>
    open(name, 'other.ts', [join(work, name), '--port', linkPort, '--name', 'Upstairs', ...more]);
  const terminal = start('upstairs');
  const [, id = ''] = await terminal.reads(/Id: (\S+)/);
  const disguised = start('impostor', '--as', id);
  const upstairs = await readDashboard(terminal);
  const impostor = await readDashboard(disguised);
  compare('the build server', upstairs.previewed, (await person.looks()).own);

  say('2', 'While the window is closed, a request is refused');
  upstairs.types('yes');
  await upstairs.reads(/Refused: the pairing window is closed/);
  page((await person.looks()).requests.length === 0, 'no request');

  say('3', 'Open the window. The impostor requests pairing with a different fingerprint: reject it');
  const opened = await person.presses((await person.looks()).page, 'Open the window');
  page(opened.left !== undefined, `the window is open, ${opened.left} left`);
  impostor.types('yes');
  await impostor.reads(/Requested\./);
  const pretended = only((await person.looks()).requests);
  page(pretended.text.includes('Upstairs requests pairing'), 'Upstairs requests pairing');
  page(!isSame(pretended, upstairs.own), `${pretended.pictures}, but Upstairs has ${upstairs.own.pictures}`);
  await person.presses(pretended.part, 'Reject');
  await impostor.reads(/Refused: this dashboard is not approved/);

  say('4', 'Upstairs requests pairing. While it waits, the impostor cannot use its id');
  upstairs.types('yes');
  await upstairs.reads(/Requested\./);
  compare('Upstairs', upstairs.own, only((await person.looks()).requests));
  impostor.types('yes');
  await impostor.reads(/Refused: the server knows a different key for this dashboard id/);
  const asking = only((await person.looks()).requests);
  page(isSame(asking, upstairs.own), 'the request is still that of Upstairs');

  say('5', 'Approve the request with the fingerprint that was shown');
  await approve(person, asking, upstairs, impostor);
  await upstairs.reads(/Paired and connected/);

  say('6', 'The paired dashboard builds a device');
  await upstairs.reads(/Firmware: \S+, \d+ bytes/);
  const row = only((await person.looks()).paired);
  page(row.text.includes('Connected'), 'Upstairs is paired and connected');

  say('7', 'Revoke the pairing');
  const revoked = await person.presses(row.part, 'Yes, revoke');
  page(revoked.paired.length === 0, 'no dashboard is paired');
  await upstairs.reads(/Session ended/);
  await upstairs.reads(/Reconnecting fails/);
  expect((await upstairs.ended) === 0, 'the dashboard exits with 0');
  console.log('\nBoth sides saw what they had to see.');
}

async function readDashboard(terminal: Terminal): Promise<Dashboard> {
  const own = readTerminal(await terminal.reads(ownLines));
  return { ...terminal, own, previewed: readTerminal(await terminal.reads(previewLines)) };
}

/** First tries what must not work: an approval without a comparison, and one with a different pin. */
async function approve(
  person: Person,
  { part }: Card,
  upstairs: Dashboard,
  impostor: Dashboard,
): Promise<void> {
  const unseen = await person.presses(part, 'Approve');
  page(unseen.status === 409 && unseen.paired.length === 0, `refused without a comparison: ${unseen.alert}`);
  const tick = { compared: 'yes' };
  const other = await person.presses(part, 'Approve', { ...tick, pin: impostor.own.hex.replaceAll(' ', '') });
  page(
    other.status === 409 && other.paired.length === 0,
    `refused with a different fingerprint: ${other.alert}`,
  );
  const done = await person.presses(part, 'Approve', tick);
  page(isSame(only(done.paired), upstairs.own), 'Upstairs is paired');
}

function compare(who: string, there: Shown, here: Shown): void {
  page(isSame(there, here), `${here.pictures}  ${here.words}`);
  console.log(`   ${' '.repeat(9)}   the same on both screens, as pictures, words and in full: ${who}`);
}

function isSame(one: Shown, other: Shown): boolean {
  return (
    one.hex.length === 95 &&
    one.pictures === other.pictures &&
    one.words === other.words &&
    one.hex === other.hex
  );
}

function only(cards: readonly Card[]): Card {
  const [card] = cards;
  if (card === undefined || cards.length > 1)
    throw new Error(`expected one card on the page, got ${cards.length}`);
  return card;
}

/** What stands on the page. */
function page(isSo: boolean, what: string): void {
  expect(isSo, what);
  console.log(`   ${'page'.padEnd(9)} | ${what}`);
}

function expect(isSo: boolean, what: string): void {
  if (!isSo) throw new Error(`check failed: ${what}`);
}
