/**
 * The sixteen frames of the session, and the only parser of a peer's objects (Device Builder 1.26). Types are exact, as on
 * the other side: a number is not a boolean, and null is never valid. Unknown fields are dropped, and unknown types are
 * distinct from malformed frames, so that a newer client is not disconnected. Field names are those of the wire.
 */
import * as z from 'zod';

import { isVersion } from '../esphome/version.js';
import { jobStatuses, type FrameType, type JobStatus } from './constants.js';
import { decodeObject, type WireObject } from './wire-json.js';

const maxNameLength = 256;
const text = z.string();
const whole = z.int();
const truth = z.boolean();
const displayName = z.string().max(maxNameLength).catch('');

// The link frames have no schema on the other side either: any nonce is echoed, and any terminate is valid.
const ping = z.object({ type: z.literal('ping'), nonce: z.unknown().optional() });
const pong = z.object({ type: z.literal('pong'), nonce: z.unknown().optional() });
const terminate = z.object({ type: z.literal('terminate'), reason: z.string().catch('') });

const queueStatus = z.object({
  type: z.literal('queue_status'),
  idle: truth,
  running: truth,
  queue_depth: whole,
});

const submitJob = z.object({
  type: z.literal('submit_job'),
  job_id: text,
  configuration_filename: text,
  target: text,
  total_bundle_bytes: whole,
  num_chunks: whole,
  bundle_sha256: z.string().transform((hash) => hash.toLowerCase()),
  device_name: displayName,
  device_friendly_name: displayName,
  target_esphome_version: z.string().refine(isVersion).catch(''),
  skip_bootloader: truth.catch(false),
});

const chunkFields = { job_id: text, chunk_index: whole, data_b64: text, is_last: truth };
const ackFields = { job_id: text, accepted: truth, reason: text.optional() };

const submitJobChunk = z.object({ type: z.literal('submit_job_chunk'), ...chunkFields });
const submitJobAck = z.object({ type: z.literal('submit_job_ack'), ...ackFields });

const jobStateChanged = z.object({
  type: z.literal('job_state_changed'),
  job_id: text,
  status: z.enum(Object.keys(jobStatuses) as [JobStatus, ...JobStatus[]]),
  error_message: text,
  failure_reason: text.optional(),
});

const jobOutput = z.object({
  type: z.literal('job_output'),
  job_id: text,
  stream: z.enum(['stdout', 'stderr']),
  line: text,
});

const cancelJob = z.object({ type: z.literal('cancel_job'), job_id: text });
const downloadArtifacts = z.object({ type: z.literal('download_artifacts'), job_id: text });

const artifactsStart = z.object({
  type: z.literal('artifacts_start'),
  job_id: text,
  total_bytes: whole,
  num_chunks: whole,
  artifacts_sha256: text,
  firmware_offset: text,
});

const artifactsChunk = z.object({ type: z.literal('artifacts_chunk'), ...chunkFields });
const artifactsEnd = z.object({ type: z.literal('artifacts_end'), ...ackFields, detail: text.optional() });
const resetBuildEnv = z.object({ type: z.literal('reset_build_env'), job_id: text });
const resetBuildEnvAck = z.object({ type: z.literal('reset_build_env_ack'), ...ackFields });

const linkFrames = [ping, pong, terminate] as const;
const toReceiver = [
  ...linkFrames,
  submitJob,
  submitJobChunk,
  cancelJob,
  downloadArtifacts,
  resetBuildEnv,
] as const;
const toOffloader = [
  ...linkFrames,
  queueStatus,
  submitJobAck,
  jobStateChanged,
  jobOutput,
  artifactsStart,
  artifactsChunk,
  artifactsEnd,
  resetBuildEnvAck,
] as const;

/** The frames that an offloader sends. */
export type ToReceiver = z.output<(typeof toReceiver)[number]>;
/** The frames that a receiver sends. */
export type ToOffloader = z.output<(typeof toOffloader)[number]>;
/** One frame by its type, for example `FrameOf<'submit_job'>`. */
export type FrameOf<T extends FrameType> = Extract<ToReceiver | ToOffloader, { type: T }>;

export type Parsed<F> =
  | { readonly kind: 'frame'; readonly frame: F }
  /** An object without a `type` that this side knows: ignore it. `type` is undefined when it is not a string. */
  | { readonly kind: 'unknown'; readonly type: string | undefined }
  /** A known type with missing or wrong fields; the reaction depends on the type. `jobId` is empty if it is not a string. */
  | { readonly kind: 'invalid'; readonly type: FrameType; readonly jobId: string }
  /** Not a JSON object: the session ends with `malformed_frame`. */
  | { readonly kind: 'malformed' };

/** Parses a decrypted message on the receiver's side. Never throws. */
export function parseToReceiver(plaintext: Buffer): Parsed<ToReceiver> {
  return parse(receiverSchemas, plaintext);
}

/** Parses a decrypted message on the offloader's side. Never throws. */
export function parseToOffloader(plaintext: Buffer): Parsed<ToOffloader> {
  return parse(offloaderSchemas, plaintext);
}

type Schemas<F> = ReadonlyMap<string, z.ZodType<F>>;
const receiverSchemas = byType<ToReceiver>(toReceiver);
const offloaderSchemas = byType<ToOffloader>(toOffloader);

function byType<F>(
  schemas: readonly (z.ZodType<F> & { shape: { type: z.ZodLiteral<FrameType> } })[],
): Schemas<F> {
  return new Map(schemas.map((schema) => [schema.shape.type.value, schema]));
}

function parse<F>(schemas: Schemas<F>, plaintext: Buffer): Parsed<F> {
  const object = decodeObject(plaintext);
  if (object === undefined) return { kind: 'malformed' };
  const type = stringField(object, 'type');
  const schema = type === undefined ? undefined : schemas.get(type);
  if (schema === undefined) return { kind: 'unknown', type };
  const result = schema.safeParse(object);
  if (result.success) return { kind: 'frame', frame: result.data };
  return { kind: 'invalid', type: type as FrameType, jobId: stringField(object, 'job_id') ?? '' };
}

function stringField(object: WireObject, name: string): string | undefined {
  const value = object[name];
  return typeof value === 'string' ? value : undefined;
}
