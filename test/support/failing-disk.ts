/**
 * Makes the n-th call of the file system fail, as SQLite's tests do: whatever step a full, read-only or broken disk
 * interrupts, the caller must report it, lose nothing and work again afterwards.
 *
 * It replaces Node's own functions in this process, so the code under test needs no seam. A call counts if it concerns
 * a path below the chosen directory. Calls of worker threads and of other processes are not seen, and neither is what
 * Node does inside a recursive function.
 */
import { createRequire, syncBuiltinESMExports } from 'node:module';
import { tmpdir } from 'node:os';
import { join, sep } from 'node:path';
import { fileURLToPath } from 'node:url';

export const failures = ['ENOSPC', 'EROFS', 'EACCES', 'EIO', 'EMFILE'] as const;
export type Failure = (typeof failures)[number];

/** The calls that can fail in each way: a full disk still reads, and only what opens a file needs a descriptor. */
const writes = [
  ...[
    'mkdir',
    'mkdtemp',
    'rename',
    'link',
    'symlink',
    'write',
    'writev',
    'writeFile',
    'appendFile',
    'copyFile',
  ],
  ...['truncate', 'ftruncate', 'cp'],
];
const changes = [
  ...writes,
  ...[
    'rm',
    'rmdir',
    'unlink',
    'utimes',
    'futimes',
    'lutimes',
    'chmod',
    'fchmod',
    'lchmod',
    'chown',
    'lchown',
  ],
];
const opens = ['open', 'opendir', 'readdir', 'readFile', 'writeFile', 'appendFile', 'copyFile', 'cp'];
const reads = [
  ...['stat', 'lstat', 'fstat', 'read', 'readv', 'readFile', 'readdir', 'opendir', 'readlink', 'realpath'],
  ...['access', 'statfs'],
];
const syncs = ['sync', 'datasync', 'fsync', 'fdatasync'];
const affected: Record<Failure, ReadonlySet<string>> = {
  ENOSPC: new Set([...writes, ...syncs]),
  EROFS: new Set(changes),
  EACCES: new Set([...changes, ...opens, ...reads]),
  EIO: new Set([...changes, ...opens, ...reads, ...syncs]),
  EMFILE: new Set(opens),
};
const everyCall = new Set(Object.values(affected).flatMap((calls) => [...calls]));

type AnyFunction = (...args: unknown[]) => unknown;
type Functions = Record<string, unknown>;

const fs = createRequire(import.meta.url)('node:fs') as Functions & { promises: Functions };

export interface FailingDisk {
  /** The calls that were counted since the last {@link FailingDisk.failAt}, as `name path`. */
  readonly calls: readonly string[];
  /** The call that failed first, as `name path`; undefined as long as none has. */
  readonly failed: string | undefined;
  /** Lets the `n`-th call from now on that can fail with `code` fail; `lasting`: and all that follow. */
  failAt(n: number, code: Failure, lasting?: boolean): void;
  /** The disk works again. */
  heal(): void;
  /** Gives Node's functions back. */
  [Symbol.dispose](): void;
}

/** Watches the calls that concern `directory`. Only one at a time per process. */
export function failingDisk(directory: string): FailingDisk {
  let calls: string[] = [];
  let failed: string | undefined;
  let armed: { left: number; code: Failure; lasting: boolean } | undefined;
  /** Where open descriptors and handles point. */
  const paths = new Map<unknown, string>();
  const undo: (() => void)[] = [];

  /** The error that this call has to fail with. */
  function intercept(name: string, target: unknown): NodeJS.ErrnoException | undefined {
    const path = pathOf(target) ?? paths.get(target);
    if (path === undefined || !(path === directory || path.startsWith(directory + sep))) return undefined;
    calls.push(`${name} ${path}`);
    if (!armed || !affected[armed.code].has(name)) return undefined;
    armed.left -= 1;
    if (armed.left > 0) return undefined;
    const { code } = armed;
    if (!armed.lasting) armed = undefined;
    failed ??= `${name} ${path}`;
    return Object.assign(new Error(`${code}: made to fail, ${name} '${path}'`), {
      code,
      syscall: name,
      path,
    });
  }

  function replace(owner: Functions, key: string, make: (original: AnyFunction) => AnyFunction): void {
    const original = owner[key];
    if (typeof original !== 'function') return;
    const replaced = make(original as AnyFunction);
    // `fs.realpath.native` and the promisified forms hang on the functions.
    Object.assign(replaced, original);
    owner[key] = replaced;
    undo.push(() => (owner[key] = original));
  }

  for (const name of everyCall) {
    replace(fs.promises, name, (original) => async (...args) => {
      const error = intercept(name, args[0]);
      if (error) throw error;
      const result = await original.apply(fs.promises, args);
      if (name === 'open') paths.set(result, pathOf(args[0]) ?? '');
      return result;
    });
    replace(fs, `${name}Sync`, (original) => (...args) => {
      const error = intercept(name, args[0]);
      if (error) throw error;
      const result = original.apply(fs, args);
      if (name === 'open') paths.set(result, pathOf(args[0]) ?? '');
      return result;
    });
    replace(fs, name, (original) => (...args) => {
      const done = args.at(-1);
      const error = intercept(name, args[0]);
      if (typeof done !== 'function') return original.apply(fs, args);
      if (error) {
        process.nextTick(done, error);
        return undefined;
      }
      if (name !== 'open') return original.apply(fs, args);
      return original.apply(fs, [
        ...args.slice(0, -1),
        (failure: unknown, descriptor: unknown) => {
          if (!failure) paths.set(descriptor, pathOf(args[0]) ?? '');
          (done as AnyFunction)(failure, descriptor);
        },
      ]);
    });
    replace(
      fileHandle,
      name,
      (original) =>
        async function (this: unknown, ...args) {
          const error = intercept(name, this);
          if (error) throw error;
          return original.apply(this, args);
        },
    );
  }
  syncBuiltinESMExports();

  return {
    get calls() {
      return calls;
    },
    get failed() {
      return failed;
    },
    failAt(n, code, lasting = false) {
      calls = [];
      failed = undefined;
      armed = { left: n, code, lasting };
    },
    heal() {
      armed = undefined;
    },
    [Symbol.dispose]() {
      for (const restore of undo.toReversed()) restore();
      syncBuiltinESMExports();
    },
  };
}

/** What every handle of `fs.promises.open` inherits from; Node exports it nowhere. */
const fileHandle = await (async () => {
  const handle = await (fs.promises['open'] as AnyFunction)(tmpdir(), 'r');
  await (handle as { close(): Promise<void> }).close();
  return Object.getPrototypeOf(handle) as Functions;
})();

function pathOf(target: unknown): string | undefined {
  if (typeof target === 'string') return join(target);
  if (Buffer.isBuffer(target)) return join(target.toString('latin1'));
  if (target instanceof URL) return fileURLToPath(target);
  return undefined;
}

export interface Attempt<Result> {
  /** The directory whose calls fail. */
  readonly directory: string;
  /** What is interrupted. */
  act(): Promise<Result>;
  /** Holds for what `act` did, with the disk working again; `at` says which call failed, for messages. */
  check(outcome: { error: unknown } | { result: Result }, at: string): Promise<void>;
}

/**
 * Runs `prepare` and its attempt again and again: with the first call failing, then the second, until all calls of the
 * attempt have had their turn; for each way of failing, once with one failing call and once with all later ones too.
 * Returns how many failures were tried.
 */
export async function everyFailure<Result>(
  prepare: () => Promise<Attempt<Result>>,
  { codes = failures, lasting = [false, true] }: { codes?: readonly Failure[]; lasting?: boolean[] } = {},
): Promise<number> {
  let tried = 0;
  for (const code of codes)
    for (const goesOn of lasting)
      for (let n = 1; ; n++) {
        const attempt = await prepare();
        const disk = failingDisk(attempt.directory);
        let outcome;
        try {
          disk.failAt(n, code, goesOn);
          outcome = await attempt.act().then(
            (result) => ({ result }),
            (error: unknown) => ({ error }),
          );
        } finally {
          disk.heal();
          disk[Symbol.dispose]();
        }
        const at = `${code}${goesOn ? ' from' : ' at'} call ${n}: ${disk.failed ?? 'none'}`;
        await attempt.check(outcome, at);
        if (disk.failed === undefined) break;
        tried += 1;
      }
  return tried;
}
