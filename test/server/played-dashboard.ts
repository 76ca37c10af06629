/** The dashboard's answer to a connect-back, as sent on the wire. */
import type { IntentAnswer } from '../../src/protocol/intent.js';

export function answerOf(word: string, reason?: string): IntentAnswer {
  return {
    ...{ intent_response: word, reason, esphome_version: '2026.10.0', friendly_name: 'hass' },
    ...{ auto_provision_supported: false, reset_build_env_supported: false, ha_addon: false },
  };
}
