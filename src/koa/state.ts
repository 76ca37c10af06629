/** What the admin surface shows of a receiver, in one object. No key and no host path is in it. */
import { waitingText, type WaitReason } from '../jobs/waiting.js';
import type { ReceiverCore } from '../receiver-api.js';
import { pinPictures, pinText, type PinPicture } from '../protocol/fingerprint.js';

export function stateOf(core: Pick<ReceiverCore, 'pin' | 'options' | 'pairing' | 'peers' | 'jobs'>): object {
  return {
    pin: core.pin,
    fingerprint: fingerprintOf(core.pin),
    friendly_name: core.options.friendlyName,
    pairing: { closes_in_ms: core.pairing.closesInMs(), requests: core.pairing.requests().map(requestView) },
    peers: core.peers.list().map(peerView),
    jobs: core.jobs.list().map(jobView),
    local_jobs: core.jobs.local().map(jobView),
  };
}

/** With the sentence that says why it waits; null when it does not. */
export function jobView<T extends { readonly waiting: WaitReason | null }>(
  job: T,
): T & { readonly waitingText: string | null } {
  return { ...job, waitingText: job.waiting && waitingText(job.waiting) };
}

/** A pin as people compare it, so that a page needs no table of its own. `text` is the whole of it. */
function fingerprintOf(pin: string): {
  readonly pictures: readonly PinPicture[];
  readonly text: string;
} {
  return { pictures: pinPictures(pin), text: pinText(pin) };
}

type Request = ReturnType<ReceiverCore['pairing']['requests']>[number];
type PeerRow = ReturnType<ReceiverCore['peers']['list']>[number];

export function requestView({ dashboardId, pin, label, friendlyName, address }: Request): object {
  const fingerprint = fingerprintOf(pin);
  return { dashboard_id: dashboardId, pin, fingerprint, label, friendly_name: friendlyName, address };
}

export function peerView({
  dashboardId,
  pin,
  label,
  friendlyName,
  address,
  pairedAt,
  connected,
}: PeerRow): object {
  return {
    dashboard_id: dashboardId,
    pin,
    fingerprint: fingerprintOf(pin),
    label,
    friendly_name: friendlyName,
    address,
    paired_at: pairedAt,
    connected,
  };
}
