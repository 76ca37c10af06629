/**
 * Frames of every kind that a peer can send, valid, mutated and random, and the protocol's verdict on each. The
 * verdicts are written from the protocol's text and use none of the code that they judge.
 */
import { createHash } from 'node:crypto';

import type { Chance } from '../support/killed/chance.js';

/** The effect of a frame on an idle session. `either`: it depends on earlier frames, or no rule says. */
export type Verdict = 'stays' | 'ends' | 'leaves' | 'either';

const odd: readonly string[] = [
  ...['null', 'true', 'false', '0', '-1', '1.5', '1e400', '9007199254740993', '-0', '""', '"x"', '[]', '{}'],
  ...[
    '"\\ud800"',
    '"\\u0000"',
    '[[[[[[]]]]]]',
    '{"a":{"b":[]}}',
    '"'.padEnd(3_000, 'y') + '"',
    '"__proto__"',
  ],
];
const fields: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  ping: { nonce: '7' },
  pong: { nonce: '7' },
  terminate: { reason: '"client_stopped"' },
  cancel_job: { job_id: '"one"' },
  download_artifacts: { job_id: '"one"' },
  reset_build_env: { job_id: '"one"' },
  submit_job: {
    ...{ job_id: '"one"', configuration_filename: '"porch.yaml"', target: '"compile"' },
    ...{ total_bundle_bytes: '40000', num_chunks: '2', bundle_sha256: `"${'ab'.repeat(32)}"` },
    ...{ device_name: '"porch"', target_esphome_version: '"2026.10.0"', skip_bootloader: 'true' },
  },
  submit_job_chunk: { job_id: '"one"', chunk_index: '0', data_b64: '"AAAA"', is_last: 'false' },
};
/** The required fields of each frame, with their types. */
const needed: Readonly<Record<string, Readonly<Record<string, 'string' | 'number' | 'boolean'>>>> = {
  download_artifacts: { job_id: 'string' },
  reset_build_env: { job_id: 'string' },
  submit_job: {
    ...{ job_id: 'string', configuration_filename: 'string', target: 'string' },
    ...{ total_bundle_bytes: 'number', num_chunks: 'number', bundle_sha256: 'string' },
  },
  submit_job_chunk: { job_id: 'string', chunk_index: 'number', data_b64: 'string', is_last: 'boolean' },
};

/** The plaintext of a frame. */
export function anyFrame(chance: Chance): Buffer {
  const kind = chance.below(20);
  if (kind === 0) return bytes(chance, chance.below(200));
  if (kind === 1)
    return Buffer.from(
      chance.oneOf(['[]', '5', '"x"', 'null', '', '{', '{"a":1}{', '['.repeat(5_000)]) ?? '',
    );
  if (kind === 2) return Buffer.from(`{"type":"ping","nonce":${'['.repeat(chance.below(60))}1`);
  if (kind === 3) return Buffer.from(`{"type":${chance.oneOf(odd)},"x":${chance.oneOf(odd)}}`);
  const type = chance.oneOf(Object.keys(fields)) ?? '';
  const members = Object.entries({ type: `"${type}"`, ...fields[type] });
  const changes = chance.below(3);
  for (let n = 0; n < changes; n += 1) change(members, chance);
  const text = `{${members.map(([name, value]) => `"${name}":${value}`).join(',')}}`;
  const whole = Buffer.from(text);
  if (chance.below(30) === 0) whole[chance.below(whole.length)] = chance.below(256);
  return whole;
}

function change(members: [string, string][], chance: Chance): void {
  const at = chance.below(members.length);
  const [name = ''] = members[at] ?? [];
  const how = chance.below(4);
  // Never the type, so that each field of each frame is mutated.
  if (how === 0 && at > 0) members.splice(at, 1);
  else if (how === 1)
    members.push([chance.oneOf(['x', '__proto__', 'constructor', name]) ?? '', chance.oneOf(odd) ?? '0']);
  else if (at > 0) members[at] = [name, chance.oneOf(odd) ?? '0'];
}

function bytes(chance: Chance, length: number): Buffer {
  const seed = String(chance.below(2 ** 31));
  return createHash('shake256', { outputLength: Math.max(1, length) })
    .update(seed)
    .digest();
}

export function verdictOf(plaintext: Buffer): Verdict {
  let value: unknown;
  try {
    const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(plaintext);
    // Not covered by the protocol: half characters and deep nesting.
    if (/\\u[dD][89a-fA-F]/.test(text) || text.split(/[[{]/).length > 20) return 'either';
    value = JSON.parse(text);
  } catch {
    return 'ends';
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return 'ends';
  const frame = value as Record<string, unknown>;
  const type = Object.hasOwn(frame, 'type') ? frame['type'] : undefined;
  if (typeof type !== 'string' || !Object.hasOwn(fields, type)) return 'stays';
  if (type === 'terminate') return 'leaves';
  if (type === 'ping' || type === 'pong' || type === 'cancel_job') return 'stays';
  const isWhole = Object.entries(needed[type] ?? {}).every(([name, kind]) => typeof frame[name] === kind);
  if (!isWhole) return 'ends';
  // The verdict depends on the values, and on earlier uploads.
  return type === 'download_artifacts' || type === 'reset_build_env' ? 'stays' : 'either';
}
