/**
 * The one error of this folder, with the two words that the peer link has for it. Its message travels to the peer
 * as it stands, so it holds no path of the host and at most 256 characters.
 */
import { isReceiverError, ReceiverError, type Facts } from '../errors.js';

/** As the wire has them (Device Builder 1.26). */
export type ArtifactsFault = 'build_dir_missing' | 'pack_failed';

const maxDetailLength = 256;

/** An `ARTIFACTS` error whose facts hold `reason` and `detail` for the wire. */
export function artifactsError(
  reason: ArtifactsFault,
  text: string,
  facts: Facts = {},
  cause?: unknown,
): ReceiverError {
  const detail = text.slice(0, maxDetailLength);
  return new ReceiverError('ARTIFACTS', detail, { ...facts, reason, detail }, { cause });
}

/** Looks at a build. What the look refuses with `STORAGE` becomes `ARTIFACTS` for `reason`; a place outside is never packed. */
export async function refusing<T>(reason: ArtifactsFault, look: () => Promise<T>): Promise<T> {
  try {
    return await look();
  } catch (error) {
    const isOutside = isReceiverError(error, 'TRAVERSAL');
    if (!isOutside && !isReceiverError(error, 'STORAGE')) throw error;
    throw artifactsError(isOutside ? 'pack_failed' : reason, error.message, error.facts, error);
  }
}
