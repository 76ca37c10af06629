/**
 * Finds out before a compile where a configuration would build.
 *
 * ESPHome 2026.10 empties the directory that `build_path` names before it builds there, and a YAML can name any
 * directory. `esphome config` writes nothing and shows the path with its substitutions applied, so the receiver runs
 * it first on a bundle that mentions a build path. This stops accidents, not attacks: an external component already
 * runs code during `esphome config`, so only confinement stops those.
 */
import { resolve } from 'node:path';

import { isInside } from '../disk/contained.js';
import { ReceiverError } from '../errors.js';
import { configArgs, type EsphomeCommand } from '../esphome/command.js';
import { plainText } from '../esphome/progress.js';
import { runCompile, type CompileRequest, type CompileResult } from './compile.js';

export interface PrecheckRequest extends Omit<CompileRequest, 'command' | 'onLine' | 'timeoutMs'> {
  readonly esphome: EsphomeCommand;
  /** The YAML, absolute. */
  readonly yaml: string;
  /** `ESPHOME_DATA_DIR` of the build. */
  readonly dataDir: string;
  /** Gets the output when the configuration is invalid. A valid one is never shown, because it contains secrets. */
  readonly onLine: (line: string) => void;
}

export const precheckTimeoutMs = 120_000;
const maxOutputBytes = 16_777_216;

/**
 * Returns null when the build stays in its data directory, and the run's result when `esphome config` fails, for
 * {@link judge}. Throws `WROTE_ELSEWHERE` when the build would leave its data directory or the output does not say
 * where it goes, and as {@link runCompile}.
 */
export async function precheck(request: PrecheckRequest): Promise<CompileResult | null> {
  const { esphome, yaml, dataDir, onLine, ...rest } = request;
  const lines: string[] = [];
  let bytes = 0;
  const keep = (line: string): void => {
    bytes += line.length;
    if (bytes <= maxOutputBytes) lines.push(line);
  };
  const command = configArgs(esphome, yaml);
  const result = await runCompile({ ...rest, command, timeoutMs: precheckTimeoutMs, onLine: keep });
  if (result.exitCode !== 0 || result.cancelled || result.leaseLost) {
    for (const line of lines) onLine(line);
    return result;
  }
  const buildPath = bytes > maxOutputBytes ? null : readBuildPath(lines);
  if (buildPath === null) throw refused('has no readable build directory', { yaml });
  const target = resolve(dataDir, buildPath);
  const stays = await isInside(dataDir, target).catch(() => false);
  if (!stays) throw refused('names a build directory outside its data directory', { buildPath, dataDir });
  return null;
}

function refused(what: string, facts: Readonly<Record<string, unknown>>): ReceiverError {
  return new ReceiverError(
    'WROTE_ELSEWHERE',
    `nothing was started: the configuration ${what} (build_path)`,
    facts,
  );
}

/**
 * Reads `build_path` from the top-level block `esphome:`. Null unless it appears exactly once as a plain or
 * single-quoted scalar on one line, which needs no YAML parser. ESPHome's dumper writes paths this way.
 */
export function readBuildPath(lines: readonly string[]): string | null {
  const plain = lines.map((line) => plainText(line).replace(/[\r\n]+$/, ''));
  const heads = plain.flatMap((line, index) => (line === 'esphome:' ? [index] : []));
  const [head] = heads;
  if (head === undefined || heads.length > 1) return null;
  const rest = plain.slice(head + 1);
  const end = rest.findIndex((line) => /^[^\s]/.test(line));
  const block = end === -1 ? rest : rest.slice(0, end);
  const found = block.flatMap((line, index) => (line.startsWith('  build_path: ') ? [index] : []));
  const [at] = found;
  if (at === undefined || found.length > 1) return null;
  const next = block[at + 1];
  if (next !== undefined && !/^ {2}\S/.test(next)) return null;
  return readScalar((block[at] as string).slice('  build_path: '.length));
}

function readScalar(text: string): string | null {
  const quoted = /^'((?:[^']|'')*)'$/.exec(text);
  if (quoted) return (quoted[1] as string).replaceAll("''", "'");
  const isPlain = /^[\p{L}\p{N}_./~$+=][^\p{C}]*$/u.test(text) && !/: |:$| #/.test(text);
  return isPlain ? text : null;
}
