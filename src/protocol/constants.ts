/**
 * Every fixed word of the peer link, once, with what it means (Device Builder 1.26).
 *
 * The words travel between programs of different age, so a misspelt one is not an error anywhere: the other
 * side just ignores it. Code takes its words from these tables, and the tables of docs/PROTOCOL.md are checked
 * against them by a test.
 */

/** What a connection is for; sent in clear in the first handshake message. */
export const intents = {
  preview: "shows the receiver's pin before anything is agreed",
  pair_request: 'asks to become an approved peer',
  pair_status: 'waits until the pairing request is approved or refused',
  peer_link: 'opens the long session in which builds travel',
  connect_back: 'a receiver tells an offloader its new address; refused by a receiver',
} as const;

/** The answer to an intent. */
export const intentResponses = {
  ok: 'the preview, or the session, is granted',
  approved: 'the peer is approved',
  pending: 'a person has not yet decided about the peer',
  rejected: 'refused, with a reason',
  no_pairing_window: 'pairing is closed, or the pairing key or source address did not fit',
} as const;

/** Why an intent was rejected, or left pending. */
export const rejectReasons = {
  no_approved_peer: 'the peer is not or no longer approved; the offloader stops for good',
  pin_mismatch: "the peer's key is not the one that was paired; the offloader stops for good",
  pending_not_approved: 'the session must wait for the approval; the offloader keeps trying',
  bad_dashboard_id: 'the dashboard id has the wrong form',
  bad_intent: 'the intent is missing or unknown',
  bad_endpoint: 'connect_back: the port or address is unusable',
  probe_failed: 'connect_back: the new address did not answer as the same receiver',
  already_connected: 'connect_back: a session is open already',
  rebind_in_progress: 'connect_back: another address is being checked',
} as const;

/** Every frame of the long session with its direction. */
export const frameTypes = {
  ping: { direction: 'both', meaning: 'asks for a pong, every 30 s' },
  pong: { direction: 'both', meaning: 'answers a ping with its nonce' },
  terminate: { direction: 'both', meaning: 'the last frame of a session, with a reason' },
  queue_status: { direction: 'to offloader', meaning: 'whether the receiver is free to compile' },
  submit_job: { direction: 'to receiver', meaning: 'announces a job and its bundle' },
  submit_job_chunk: { direction: 'to receiver', meaning: 'one piece of the bundle' },
  submit_job_ack: { direction: 'to offloader', meaning: 'the bundle is complete, or the job is refused' },
  job_state_changed: { direction: 'to offloader', meaning: 'the new status of a job' },
  job_output: { direction: 'to offloader', meaning: 'one line of output with its terminator' },
  cancel_job: { direction: 'to receiver', meaning: 'asks to stop a job; the new status is the answer' },
  download_artifacts: { direction: 'to receiver', meaning: "asks for a completed job's files" },
  artifacts_start: { direction: 'to offloader', meaning: 'announces the files' },
  artifacts_chunk: { direction: 'to offloader', meaning: 'one piece of the files' },
  artifacts_end: { direction: 'to offloader', meaning: 'the files are complete, or refused' },
  reset_build_env: { direction: 'to receiver', meaning: "asks to empty the receiver's build caches" },
  reset_build_env_ack: { direction: 'to offloader', meaning: 'the reset is queued, or refused' },
} as const;

/** Why a job was refused. The offloader shows the word and fails the job. */
export const ackReasons = {
  duplicate_submit: 'another bundle is being received, or too many of the peer are still being dealt with',
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
  hash_mismatch: 'the SHA-256 of the bundle is not the announced one',
  chunk_count_mismatch: 'the last chunk came too early or too late',
  empty_bundle: 'the bundle is announced with no bytes',
  quota_exceeded: 'the builds under way take all the room that there may be; with a text for the user',
  disk_full: 'the disk of the receiver is full; with a text for the user',
} as const;

/** Why a reset of the build environment was refused. */
export const resetReasons = {
  invalid_frame: 'the frame is malformed',
  not_ready: 'the receiver cannot run jobs now',
  busy: 'a job, an upload or a download is under way',
  queue_rejected: 'the job could not be queued',
} as const;

/** The status of a job. The last three are terminal, and exactly one of them is sent for each job. */
export const jobStatuses = {
  queued: 'waits for its turn',
  running: 'is being compiled',
  completed: 'done; the files can be fetched',
  failed: 'ended badly, with a message',
  cancelled: 'stopped by a person or by a newer job',
} as const;

/** Why a session was ended. Any other word may come from the other side and means: try again. */
export const terminateReasons = {
  superseded: 'to an older session of the same peer only: its client stops for good',
  identity_in_use: 'another program with the same identity is connected; try again later',
  heartbeat_timeout: 'no sign of life for 90 s',
  server_shutting_down: 'the receiver ends',
  malformed_frame: 'a message could not be decrypted, or is no frame',
  client_stopped: 'the offloader ends',
} as const;

/** Why a download was refused or broken off. */
export const artifactsReasons = {
  duplicate_download: 'another download of this peer is running',
  unknown_job: 'there is no such job, or its files have expired',
  job_not_completed: 'the job has not completed',
  busy: 'the build environment is being reset',
  shutting_down: 'the receiver ends',
  build_dir_missing: "a file that ESPHome's tools need is missing from the build",
  pack_failed: 'the files could not be packed',
  stream_failed: 'an error while the files were being sent',
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
