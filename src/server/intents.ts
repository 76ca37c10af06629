/**
 * The answer to the handshake: what the caller requests, and whether it is granted (Device Builder 1.26). The reason
 * matters: after `no_approved_peer` or `pin_mismatch` a client stops for good, and its user must pair again.
 */
import { idOrUndefined } from '../peers/identity.js';
import type { PairingCaller, PairingService } from '../peers/pairing.js';
import type { Responded } from '../protocol/handshake.js';
import type { IntentAnswer } from '../protocol/intent.js';
import type { IntentResponse, RejectReason } from '../protocol/constants.js';

/** Facts about the receiver in every answer. */
export interface ReceiverFacts {
  readonly haAddon: boolean;
  /** Whether pairing needs the printed key; sent only in the answer to a preview. */
  readonly pairingByKey: boolean;
}

export interface IntentDecision {
  readonly response: IntentResponse;
  readonly reason?: RejectReason;
  /** The caller that can open a session. */
  readonly granted?: PairingCaller;
}

/** Decides about a caller, which can wait for an operator. Undefined when the connection ended meanwhile. */
export async function decide(
  responded: Responded,
  pairing: PairingService,
): Promise<IntentDecision | undefined> {
  const { intent, channel } = responded;
  switch (intent) {
    case undefined:
      return { response: 'rejected', reason: 'bad_intent' };
    case 'preview':
      return { response: 'ok' };
    case 'connect_back':
      return { response: 'rejected', reason: 'no_approved_peer' };
    default:
      break;
  }
  const caller = callerOf(responded);
  if (!caller) return { response: 'rejected', reason: 'bad_dashboard_id' };
  // A wrong `no_approved_peer` is final, so it must not come from a table that another receiver has changed since.
  await pairing.reread(caller.dashboardId);
  if (intent === 'pair_request') return pairing.pairRequest(caller);
  if (intent === 'pair_status') return pairing.pairStatus(caller, channel.signal);
  const answer = pairing.peerLink(caller);
  return answer.response === 'ok' ? { ...answer, granted: caller } : answer;
}

function callerOf({ hello, peerStaticKey, channel }: Responded): PairingCaller | undefined {
  const dashboardId = idOrUndefined(hello.dashboardId);
  return dashboardId && { ...hello, dashboardId, publicKey: peerStaticKey, address: channel.remoteAddress };
}

/** `version` is that of the installed ESPHome, empty if unknown. */
export function answerOf(
  { response, reason }: IntentDecision,
  responded: Responded,
  about: ReceiverFacts & { readonly friendlyName: string },
  { version, provisions, resets }: { version: string; provisions: boolean; resets: boolean },
): IntentAnswer {
  return {
    intent_response: response,
    esphome_version: version,
    auto_provision_supported: provisions,
    reset_build_env_supported: resets,
    friendly_name: about.friendlyName,
    ha_addon: about.haAddon,
    ...(reason && { reason }),
    ...(responded.intent === 'preview' && about.pairingByKey && { requires_pairing_key: true }),
  };
}
