/**
 * Only src/paths turns a peer's words into places on disk. Everywhere else a path that is built from a field which
 * a peer has filled is a violation, found by the field's name. Crude, but it fails at the spot where a traversal
 * would be born: in `join(root, frame.device_name)` and in `${root}/${jobId}.log`.
 */
import type { Sources } from './sources.js';

/** Fields that hold what a peer said, in our spelling; the wire's (snake_case) is derived. */
const peerFields = [
  'dashboardId',
  'device',
  'deviceName',
  'deviceFriendlyName',
  'configuration',
  'configurationFilename',
  'configFile',
  'fileName',
  'filename',
  'jobId',
  'peerJobId',
  'peerLabel',
  'targetVersion',
];
const spellings = peerFields.flatMap((field) => [
  field,
  field.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`),
]);
/** A `file` by itself may be anybody's, a `file` of something is what a peer named. */
const peerField = new RegExp(
  String.raw`(?<![\w'"$])(?:(?:\w+\??\.)*(?:${spellings.join('|')})|(?:\w+\??\.)+file)\b(?!['"(:]|\s*=>)`,
);
/** A hash of whatever it is given. */
const harmless = /\bhashName\([^()]*\)/g;

/** src/disk takes whole places, never names; the stand-in in src/testing is told its places as ESPHome is. */
const allowedFolders = ['src/paths/', 'src/disk/', 'src/testing/'];

/** `file:line: text` for each path that is built from a peer's field outside these. */
export function joinViolations(sources: Sources): string[] {
  const found: string[] = [];
  for (const [path, text] of sources) {
    if (allowedFolders.some((folder) => path.startsWith(folder))) continue;
    for (const { start, arguments: inner } of [...calls(text), ...templates(text)]) {
      const field = peerField.exec(inner.replaceAll(harmless, ''))?.[0];
      if (field)
        found.push(`${path}:${text.slice(0, start).split('\n').length}: a path is built from ${field}`);
    }
  }
  return found;
}

interface Built {
  readonly start: number;
  readonly arguments: string;
}

/** Calls of `join` and of `resolve` with more than one argument (a Promise's has one), not those of arrays. */
function* calls(text: string): Generator<Built> {
  for (const match of text.matchAll(/(?<!\w)(?<object>\w+\.)?(?<method>join|resolve)\(/g)) {
    const { object = '', method } = match.groups ?? {};
    const isOfPath = /^(path|posix|win32)\.$/.test(object);
    if (object !== '' && !isOfPath) continue;
    if (object === '' && text[match.index - 1] === '.') continue;
    const inner = upToClosing(text, match.index + match[0].length);
    if (method === 'join' || isOfPath || inner.includes(',')) yield { start: match.index, arguments: inner };
  }
}

/** Templates with a slash beside a placeholder, reduced to the placeholders that stand beside one. */
function* templates(text: string): Generator<Built> {
  for (const match of text.matchAll(/(?<=\/)\$\{([^}]*)\}|\$\{([^}]*)\}(?=\/)/g)) {
    yield { start: match.index, arguments: match[1] ?? match[2] ?? '' };
  }
}

function upToClosing(text: string, from: number): string {
  let depth = 1;
  let end = from;
  for (; end < text.length && depth > 0; end++) {
    if (text[end] === '(') depth++;
    if (text[end] === ')') depth--;
  }
  return text.slice(from, end - 1);
}
