/**
 * The one family of errors, and the one way to show a stranger's text in a message.
 *
 * Every refusal carries a literal `code` to branch on and the facts to log. The message is written for a
 * person and holds no host path, because messages travel to peers; paths belong into `facts`, which only the
 * log sees. The accident that this prevents: a caller who compares message texts, and a peer who reads where
 * the receiver keeps its files.
 */

/** Every code with what it means. The table in README.md is checked against this one by a test. */
export const errorCodes = {
  TRAVERSAL: 'a name or path from outside could leave its place, or has the shape of such a one',
  OPTIONS: 'the options contradict themselves or hold a value of the wrong type',
  BUNDLE: 'an uploaded bundle is damaged, too large or holds something other than plain files',
  ARTIFACTS: 'a finished build does not hold what its client needs',
  WROTE_ELSEWHERE: 'a compile ended well but its results are not where the resolver says',
  STORAGE: "a file of ESPHome's is missing or cannot be read",
  LOCK_TIMEOUT: 'the lock on a build directory was not free in time',
  LOCK_LOST: 'the lock on a build directory was lost while it was held',
  FENCED: 'a newer owner of the lock has published already',
  CANCELLED: 'the operation was cancelled by its caller',
  SPAWN: 'a program could not be started',
  PROVISION: 'an ESPHome could not be found or installed',
  RESOURCE: 'the machine has too little room for a build',
  NOISE: 'a handshake or transport message is not a valid Noise message',
  PROTOCOL: 'the other side broke a rule of the peer link',
  REJECTED: 'the other side refused, for the reason that it gave',
  PAIRING: 'the pairing request does not exist or is not the one that was shown',
  NOT_FOUND: 'there is no such job, peer or file',
  STATE: 'the call does not fit the present state',
} as const;

export type ErrorCode = keyof typeof errorCodes;

/** Facts for the log. Values may hold host paths and hostile text: print them through {@link quote}. */
export type Facts = Readonly<Record<string, unknown>>;

const family = Symbol.for('koa-esphome-receiver.error');

/** The base of all errors thrown on purpose. Recognise it with {@link isReceiverError}, not `instanceof`. */
export class ReceiverError extends Error {
  readonly code: ErrorCode;
  readonly facts: Facts;

  constructor(code: ErrorCode, message: string, facts: Facts = {}, options?: { readonly cause?: unknown }) {
    super(message, options);
    this.name = 'ReceiverError';
    this.code = code;
    this.facts = facts;
    Object.defineProperty(this, family, { value: true });
  }
}

/** Tells our errors from all others, also when two copies of this package are loaded. */
export function isReceiverError(error: unknown, code?: ErrorCode): error is ReceiverError {
  if (typeof error !== 'object' || error === null || !(family in error)) return false;
  return code === undefined || ('code' in error && error.code === code);
}

/** A refused name, path or configuration string. `rule` names what was broken, in a few words. */
export class TraversalError extends ReceiverError {
  readonly rule: string;

  constructor(what: string, text: unknown, rule: string) {
    super('TRAVERSAL', `${what} ${quote(text)} is refused: ${rule}`, { rule });
    this.name = 'TraversalError';
    this.rule = rule;
  }
}

const shownLength = 80;

/** Letters, marks, digits, punctuation and signs of any script that have a picture of their own. */
const showable = /^[\p{L}\p{M}\p{N}\p{P}\p{S} ]$/u;
const hidden = /[\p{Cf}\p{Default_Ignorable_Code_Point}]/u;

/**
 * Shows hostile text in one line: quoted, at most 80 UTF-16 units of it, people's own letters as they are and everything
 * without a picture as an escape, so that neither a terminal nor a log reader can be led astray. Takes time bounded by
 * the limit.
 */
export function quote(value: unknown): string {
  if (typeof value !== 'string') return value === null ? 'null' : `(${typeof value})`;
  const cut = value.slice(0, shownLength);
  const escaped = JSON.stringify(cut).replace(/[^\x20-\x7e]/gu, shownOrEscaped);
  return value.length > shownLength ? `${escaped}… (${value.length} characters)` : escaped;
}

function shownOrEscaped(character: string): string {
  if (/^[\x20-\x7e]$/.test(character) || (showable.test(character) && !hidden.test(character)))
    return character;
  return Array.from(
    { length: character.length },
    (_, at) => `\\u${character.charCodeAt(at).toString(16).padStart(4, '0')}`,
  ).join('');
}

/** The message of whatever was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** The `code` of a system error such as ENOENT, or undefined. */
export function systemCode(error: unknown): string | undefined {
  const code = typeof error === 'object' && error !== null ? (error as { code?: unknown }).code : undefined;
  return typeof code === 'string' ? code : undefined;
}
