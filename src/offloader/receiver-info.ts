/** What a receiver says about itself in its answer to any intent. */
import type { Initiated } from '../link/handshake.js';

export interface ReceiverInfo {
  /** Lower-case hex SHA-256 of its key; proved by the handshake, unlike the rest. */
  readonly pin: string;
  /** Its installed ESPHome, '' when it does not say. */
  readonly esphomeVersion: string;
  readonly friendlyName: string;
  readonly haAddon: boolean;
  /** It can build with the very version that a job names. */
  readonly autoProvisionSupported: boolean;
  /** Pairing needs its pairing key. Only a preview tells. */
  readonly requiresPairingKey: boolean;
}

export function infoOf({ answer, peerPin }: Initiated): ReceiverInfo {
  return {
    pin: peerPin,
    esphomeVersion: answer.esphome_version,
    friendlyName: answer.friendly_name,
    haAddon: answer.ha_addon,
    autoProvisionSupported: answer.auto_provision_supported,
    requiresPairingKey: answer.requires_pairing_key === true,
  };
}
