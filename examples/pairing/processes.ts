/** Starts the processes of this example, and reads and types in place of a person at their terminals. */
import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';

/** Far more than a first compile takes. */
const deadlineMs = 180_000;

export interface Terminal {
  /** Waits for what it prints next that matches; what stood before that is past. Throws when it ends without. */
  reads(pattern: RegExp): Promise<RegExpExecArray>;
  types(line: string): void;
  /** Its exit code, null after a signal. */
  readonly ended: Promise<number | null>;
  stop(): Promise<void>;
}

/** `name` stands before each line that it prints. The process ends with this one, whatever ends it. */
export function openTerminal(
  name: string,
  program: 'host.ts' | 'other.ts',
  args: readonly string[],
): Terminal {
  const path = fileURLToPath(new URL(program, import.meta.url));
  const child = fork(path, args, { stdio: ['pipe', 'pipe', 'pipe', 'ipc'] });
  let output = '';
  let past = 0;
  let echoed = 0;
  let hasEnded = false;
  const readers = new Set<() => void>();

  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding('utf8').on('data', (text: string) => {
      output += text;
      for (let end = output.indexOf('\n', echoed); end >= 0; end = output.indexOf('\n', echoed)) {
        console.log(`   ${name.padEnd(9)} | ${output.slice(echoed, end)}`);
        echoed = end + 1;
      }
      for (const look of readers) look();
    });
  }
  const ended = new Promise<number | null>((resolve) => {
    child.once('close', (code) => {
      hasEnded = true;
      for (const look of readers) look();
      resolve(code);
    });
  });

  return {
    reads(pattern) {
      return new Promise((resolve, reject) => {
        const timer = setTimeout(() => fail(`did not print ${pattern} in time`), deadlineMs);
        function look(): void {
          const match = pattern.exec(output.slice(past));
          if (match) {
            past += match.index + match[0].length;
            settle();
            resolve(match);
          } else if (hasEnded) fail(`ended without printing ${pattern}`);
        }
        function fail(why: string): void {
          settle();
          reject(new Error(`${name} ${why}`));
        }
        function settle(): void {
          clearTimeout(timer);
          readers.delete(look);
        }
        readers.add(look);
        look();
      });
    },
    types(line) {
      console.log(`   ${name.padEnd(9)} > ${line}`);
      child.stdin?.write(`${line}\n`);
    },
    ended,
    async stop() {
      child.kill('SIGTERM');
      await ended;
    },
  };
}
