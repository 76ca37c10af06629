/**
 * Every fixed word of the peer link with its meaning (Device Builder 1.26). A misspelt word is not an error anywhere,
 * because both sides ignore words that they do not know. Code takes its words from these tables, and a test compares them
 * with the tables of docs/PROTOCOL.md.
 */

/** The purpose of a connection, sent unencrypted in the first handshake message. */
export const intents = {
  preview: "shows the receiver's pin before pairing",
  pair_request: 'requests to become an approved peer',
  pair_status: 'waits until the pairing request is approved or refused',
  peer_link: 'opens the session for builds',
  connect_back: 'a receiver tells an offloader its new address; refused by a receiver',
} as const;

/** The answer to an intent. */
export const intentResponses = {
  ok: 'the preview, or the session, is granted',
  approved: 'the peer is approved',
  pending: 'an operator has not decided about the peer yet',
  rejected: 'refused, with a reason',
  no_pairing_window: 'pairing is closed, or the pairing key or source address did not match',
} as const;

/** Why an intent was rejected, or left pending. */
export const rejectReasons = {
  no_approved_peer: 'the peer is not or no longer approved; the offloader stops for good',
  pin_mismatch: "the peer's key differs from the paired one; the offloader stops for good",
  pending_not_approved: 'the session must wait for the approval; the offloader keeps trying',
  bad_dashboard_id: 'the dashboard id has the wrong form',
  bad_intent: 'the intent is missing or unknown',
  bad_endpoint: 'connect_back: the port or address is unusable',
  probe_failed: 'connect_back: the new address did not answer as the same receiver',
  already_connected: 'connect_back: a session is already open',
  rebind_in_progress: 'connect_back: another address is being checked',
} as const;

/** Every frame of the session with its direction. */
export const frameTypes = {
  ping: { direction: 'both', meaning: 'requests a pong, every 30 s' },
  pong: { direction: 'both', meaning: 'answers a ping with its nonce' },
  terminate: { direction: 'both', meaning: 'the last frame of a session, with a reason' },
  queue_status: { direction: 'to offloader', meaning: 'whether the receiver is free to compile' },
  submit_job: { direction: 'to receiver', meaning: 'announces a job and its bundle' },
  submit_job_chunk: { direction: 'to receiver', meaning: 'one piece of the bundle' },
  submit_job_ack: { direction: 'to offloader', meaning: 'the bundle is complete, or the job is refused' },
  job_state_changed: { direction: 'to offloader', meaning: 'the new status of a job' },
  job_output: { direction: 'to offloader', meaning: 'one line of output with its terminator' },
  cancel_job: { direction: 'to receiver', meaning: 'requests to stop a job; the new status is the answer' },
  download_artifacts: { direction: 'to receiver', meaning: "requests a completed job's files" },
  artifacts_start: { direction: 'to offloader', meaning: 'announces the files' },
  artifacts_chunk: { direction: 'to offloader', meaning: 'one piece of the files' },
  artifacts_end: { direction: 'to offloader', meaning: 'the files are complete, or refused' },
  reset_build_env: { direction: 'to receiver', meaning: "requests to empty the receiver's build caches" },
  reset_build_env_ack: { direction: 'to offloader', meaning: 'the reset is queued, or refused' },
} as const;

/** Why a job was refused. The offloader shows the reason and fails the job. */
export const ackReasons = {
  duplicate_submit:
    'another bundle is being received, the peer has too many unfinished uploads, or another lane has a job with this id',
  invalid_header: 'a field of the announcement is missing, of the wrong type or not allowed',
  invalid_chunk: 'a field of the chunk is missing or of the wrong type',
  no_inflight_submit: 'a chunk without an announced bundle',
  job_id_mismatch: 'the chunk names another job than the announcement',
  chunk_decode_failed: 'the chunk is not strict standard base64',
  upload_unsupported: 'the receiver does not flash devices',
  out_of_order: 'the chunk is not the next one',
  post_completion: 'a chunk after the last one; cannot occur',
  oversized: 'the bundle is larger than announced or allowed',
  undersized: 'the bundle is smaller than announced',
  hash_mismatch: 'the SHA-256 of the bundle differs from the announced one',
  chunk_count_mismatch: 'the last chunk came too early or too late',
  empty_bundle: 'the announced size is zero',
  quota_exceeded: 'waiting and running builds use the whole quota; with a message for the user',
  disk_full: 'the disk of the receiver is full; with a message for the user',
  not_ready: 'the receiver cannot take jobs now; with a message for the user',
} as const;

/** Why a reset of the build environment was refused. */
export const resetReasons = {
  invalid_frame: 'the frame is malformed',
  not_ready: 'the receiver cannot run jobs now',
  busy: 'a job, an upload or a download is in progress',
  queue_rejected: 'the job could not be queued',
} as const;

/** The status of a job. The last three are terminal; each job ends with exactly one of them. */
export const jobStatuses = {
  queued: 'waits in the queue',
  running: 'is being compiled',
  completed: 'done; the files can be fetched',
  failed: 'ended with an error and a message',
  cancelled: 'stopped by a person or by a newer job',
} as const;

/** Why a session was ended. The other side can send other words too; they mean: try again. */
export const terminateReasons = {
  superseded: 'sent only to the older session of a peer: its client stops for good',
  identity_in_use: 'another client with the same identity is connected; try again later',
  heartbeat_timeout: 'no frame arrived for 90 s',
  server_shutting_down: 'the receiver is stopping',
  malformed_frame: 'a message could not be decrypted, or is not a frame',
  client_stopped: 'the offloader is stopping',
} as const;

/** Why a download was refused or aborted. */
export const artifactsReasons = {
  duplicate_download: 'another download of this peer is running',
  unknown_job: 'the job does not exist, or its files have expired',
  job_not_completed: 'the job has not completed',
  busy: 'the build environment is being reset',
  shutting_down: 'the receiver is stopping',
  build_dir_missing: "a file that ESPHome's tools need is missing from the build",
  pack_failed: 'the files could not be packed',
  stream_failed: 'an error while the files were sent',
} as const;

export type Intent = keyof typeof intents;
export type IntentResponse = keyof typeof intentResponses;
export type RejectReason = keyof typeof rejectReasons;
export type FrameType = keyof typeof frameTypes;
export type AckReason = keyof typeof ackReasons;
export type JobStatus = keyof typeof jobStatuses;
export type TerminateReason = keyof typeof terminateReasons;
export type ResetReason = keyof typeof resetReasons;
export type ArtifactsReason = keyof typeof artifactsReasons;
