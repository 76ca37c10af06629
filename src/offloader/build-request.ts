/** What a caller of a session asks for, and what comes of it. */
import type { JobStatus } from '../link/names.js';

/** A bundle whose size and hash are known before its first byte is read. */
export interface AnnouncedBundle {
  readonly bytes: Iterable<Buffer> | AsyncIterable<Buffer>;
  readonly size: number;
  /** Hexadecimal. */
  readonly sha256: string;
}

/** A gzip-compressed tar archive with its `manifest.json`, at most 128 MiB. */
export type Bundle = Buffer | AnnouncedBundle;

export interface BuildRequest {
  /** The YAML's name as the bundle's manifest has it. */
  readonly file: string;
  readonly bundle: Bundle;
  /** Default `compile`. */
  readonly target?: 'compile' | 'clean';
  /** Default: 12 random hex digits. The same id again takes up a job whose session was lost. */
  readonly jobId?: string;
  /** The ESPHome version to build with. Default: the receiver's own. */
  readonly targetVersion?: string;
  /** Leaves bootloader and factory image out (ESPHome 2026.10, ESP-IDF). Default false. */
  readonly skipBootloader?: boolean;
  /** For people at the receiver. Default ''. */
  readonly deviceName?: string;
  readonly deviceFriendlyName?: string;
  /** The receiver has the whole bundle and the job on record: from now on it is found again under its id. */
  readonly onAccepted?: () => void;
  /** One piece of output with its terminator. */
  readonly onOutput?: (line: string, stream: 'stdout' | 'stderr') => void;
  /** Every status, the last one too. */
  readonly onState?: (status: JobStatus) => void;
  readonly signal?: AbortSignal;
}

export interface BuildResult {
  readonly jobId: string;
  readonly status: 'completed' | 'failed' | 'cancelled';
  /** '' when the receiver gives none. */
  readonly errorMessage: string;
  /** `provision`: the receiver could not install the wanted version. */
  readonly failureReason?: string;
}
