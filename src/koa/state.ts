/**
 * The receiver's whole state in one object, which the event stream then keeps current. It holds no key and no host path.
 * Short because it is the contract of `GET /state` and of the first event alone.
 */
import type { ReceiverCore } from '../receiver-api.js';
import {
  fingerprintOf,
  type Fingerprint,
  type JobView,
  type LaneView,
  type LocalJobView,
  type PeerView,
  type RequestView,
} from '../views.js';

export interface StateView {
  /** SHA-256 of the receiver's public key in lower-case hex. */
  readonly pin: string;
  readonly fingerprint: Fingerprint;
  readonly friendlyName: string;
  /** The build servers that the receiver presents: at least the first, which is described above. */
  readonly lanes: readonly LaneView[];
  /** `closesInMs` is 0 when the pairing window is closed. */
  readonly pairing: { readonly closesInMs: number; readonly requests: readonly RequestView[] };
  readonly peers: readonly PeerView[];
  /** Oldest first. */
  readonly jobs: readonly JobView[];
  readonly localJobs: readonly LocalJobView[];
}

export type StateSource = Pick<ReceiverCore, 'pin' | 'options' | 'pairing' | 'peers' | 'jobs'>;

export function stateOf(
  { pin, options, pairing, peers, jobs }: StateSource,
  lanes: readonly LaneView[],
): StateView {
  return {
    ...{ pin, fingerprint: fingerprintOf(pin), friendlyName: options.friendlyName, lanes },
    pairing: { closesInMs: pairing.closesInMs(), requests: pairing.requests() },
    peers: peers.list(),
    jobs: jobs.list(),
    localJobs: jobs.local(),
  };
}
