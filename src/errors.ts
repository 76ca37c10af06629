/**
 * The errors of the receiver, and the safe way to show a stranger's text in a message. Every error has a literal `code` to
 * branch on, so that no caller compares messages. The message is written for people and contains no host path, because it
 * can be sent to a peer; paths belong into `facts`, which only the log shows.
 */

/** Every code with its meaning. A test compares the codes with the table in README.md. */
export const errorCodes = {
  TRAVERSAL: 'a name or path could lead out of its directory',
  OPTIONS: 'an option or argument is invalid',
  BUNDLE: 'a bundle is damaged, too large, or holds something other than files',
  ARTIFACTS: 'a finished build lacks a file that its client needs',
  WROTE_ELSEWHERE: 'a compile succeeded, but its results are not where they must be',
  STORAGE: 'a file that ESPHome writes is missing or unreadable',
  LOCK_TIMEOUT: 'the lock on a build directory was not free in time',
  LOCK_LOST: 'the lock on a build directory was lost while held',
  FENCED: 'a newer owner of the lock has already published',
  CANCELLED: 'the caller cancelled the operation',
  SPAWN: 'a program could not be started',
  PROVISION: 'an ESPHome could not be found or installed',
  RESOURCE: 'the machine has too little room for a build',
  NOISE: 'a message is not a valid Noise message',
  PROTOCOL: 'the other side broke a rule of the peer link',
  REJECTED: 'the other side refused; `facts.reason` says why',
  PAIRING: 'the pairing request does not exist, or has a different pin',
  NOT_FOUND: 'there is no such job, peer or file',
  STATE: 'the call is not possible in the current state',
} as const;

export type ErrorCode = keyof typeof errorCodes;

/** Facts for the log. Values can contain host paths and hostile text: print them with {@link quote}. */
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

/** Recognises our errors, even if two copies of this package are loaded. */
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
 * Shows hostile text safely for terminals and log readers: quoted, in one line, at most 80 UTF-16 units, with visible
 * letters of any script and everything else escaped. A byte of a file's name that is not UTF-8, which is a lone surrogate
 * from U+DC80 to U+DCFF, is shown as `\xNN`. The limit also bounds its run time.
 */
export function quote(value: unknown): string {
  if (typeof value !== 'string') return value === null ? 'null' : `(${typeof value})`;
  const cut = value.slice(0, shownLength);
  const escaped = JSON.stringify(cut)
    .replace(/[^\x20-\x7e]/gu, shownOrEscaped)
    .replace(/\\(?:\\|udc([89a-f][0-9a-f]))/g, (text, byte?: string) =>
      byte === undefined ? text : `\\x${byte}`,
    );
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

export const diskFullMessage = 'the disk of the build server is full; make room there and build again';

/**
 * What a disk fault or a lack of descriptors means to the user of another machine, and who can fix it. The system's own
 * messages name host paths and mean nothing to that user.
 */
const hostFaults: Readonly<Record<string, string>> = {
  ENOSPC: diskFullMessage,
  EDQUOT: diskFullMessage,
  EROFS: 'the disk of the build server is read-only; its operator must make it writable',
  EIO: 'the disk of the build server reports errors; its operator must check it',
  EACCES: 'the build server lacks permissions on its own files; its operator must correct them',
  EPERM: 'the build server lacks permissions on its own files; its operator must correct them',
  EMFILE: 'the build server has too many open files; build again when it is less busy',
  ENFILE: 'the build server has too many open files; build again when it is less busy',
  ENOMEM: 'the build server is out of memory; build again when it is less busy',
  ENOENT: 'a file or directory on the build server was removed during the job; build again',
};
/** The codes of a shortage, which can pass. The other faults need the operator. */
const shortages: ReadonlySet<string> = new Set(['ENOSPC', 'EDQUOT', 'EMFILE', 'ENFILE', 'ENOMEM']);

export interface HostFault {
  readonly code: string;
  /** A sentence without host paths. */
  readonly message: string;
  readonly isShortage: boolean;
}

/**
 * The host's fault behind an error; null for any other error. The cause of a receiver error counts if it is a shortage,
 * or if the error is about the server's own files. A program that cannot be executed is not a fault of the disk.
 */
export function hostFaultOf(error: unknown): HostFault | null {
  let cause = error;
  let isOwnFile = true;
  for (; isReceiverError(cause); cause = cause.cause) isOwnFile &&= cause.code === 'STORAGE';
  const code = systemCode(cause) ?? '';
  const message = Object.hasOwn(hostFaults, code) ? hostFaults[code] : undefined;
  const isShortage = shortages.has(code);
  const isMeant = isShortage || (isOwnFile && (code !== 'ENOENT' || cause === error));
  return message !== undefined && isMeant ? { code, message, isShortage } : null;
}

/** The message of any thrown value. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/**
 * Turns a system error into `STORAGE`, because its message contains a host path; any other error is returned unchanged.
 * `what` says what failed, such as "a lock cannot be used".
 */
export function storageError(what: string, error: unknown, facts: Facts = {}): unknown {
  if (isReceiverError(error)) return error;
  const code = systemCode(error) ?? 'unknown error';
  return new ReceiverError('STORAGE', `${what} (${code})`, facts, { cause: error });
}

/** Whether a full volume, in bytes, files or quota, is behind the error. */
export function isDiskFull(error: unknown): boolean {
  if (['ENOSPC', 'EDQUOT'].includes(systemCode(error) ?? '')) return true;
  return error instanceof Error && error.cause !== undefined && isDiskFull(error.cause);
}

/** The `code` of a system error such as ENOENT, or undefined. */
export function systemCode(error: unknown): string | undefined {
  const code = typeof error === 'object' && error !== null ? (error as { code?: unknown }).code : undefined;
  return typeof code === 'string' ? code : undefined;
}
