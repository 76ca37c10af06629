/**
 * The messages before a session: the intent, the offloader's hello, and the answer. They come from strangers, and older
 * clients omit fields, so a field of the wrong type counts as absent and no message is refused (Device Builder 1.26).
 * The dashboard id is not checked here, but wherever it becomes a path or a key.
 */
import * as z from 'zod';

import { isVersion } from '../esphome/version.js';
import { intents, type Intent } from './constants.js';
import { decodeObject, encodeObject, type WireObject } from './wire-json.js';

const maxNameLength = 128;
const maxPort = 65_535;

/** The third handshake message, normalised. */
export interface IntentMessage {
  /** Unchecked and not trimmed; empty if absent. */
  readonly dashboardId: string;
  /** Trimmed, at most 128 characters, like `friendlyName`. */
  readonly label: string;
  readonly friendlyName: string;
  readonly haAddon: boolean;
  /** Whether the offloader's program chose the label. */
  readonly labelAuto: boolean;
  /** Absent when empty. */
  readonly pairingKey?: string;
  /** The port of the offloader's own listener, or 0. */
  readonly connectBackPort: number;
  /** In a connect-back: the receiver's port. Absent when unusable. */
  readonly peerLinkPort?: number;
}

/** The answer to an intent, in the wire's own words. */
export interface IntentAnswer {
  /** One of `intentResponses`, or another word of a newer receiver. */
  readonly intent_response: string;
  /** One of `rejectReasons`; sent with `rejected`, and with `pending` except in the answer to a pairing request. */
  readonly reason?: string | undefined;
  /** The receiver's ESPHome version, empty if unknown. */
  readonly esphome_version: string;
  readonly auto_provision_supported: boolean;
  readonly reset_build_env_supported: boolean;
  readonly friendly_name: string;
  readonly ha_addon: boolean;
  /** Only in the answer to a preview, and only if a pairing key is required. */
  readonly requires_pairing_key?: true | undefined;
}

const intentAnswer: z.ZodType<IntentAnswer> = z.object({
  intent_response: z.string(),
  reason: z.string().optional().catch(undefined),
  esphome_version: z.string().refine(isVersion).catch(''),
  auto_provision_supported: z.boolean().catch(false),
  reset_build_env_supported: z.boolean().catch(false),
  friendly_name: z.unknown().optional().transform(displayName),
  ha_addon: z.boolean().catch(false),
  requires_pairing_key: z.literal(true).optional().catch(undefined),
});

/** The payload of the first handshake message. */
export function encodeIntent(intent: Intent): Buffer {
  return encodeObject({ intent });
}

/** The intent in the first handshake message; undefined if missing or unknown. */
export function decodeIntent(payload: Buffer): Intent | undefined {
  const intent = decodeObject(payload)?.['intent'];
  return typeof intent === 'string' && Object.hasOwn(intents, intent) ? (intent as Intent) : undefined;
}

/** The payload of the third handshake message, without absent fields. */
export function encodeIntentMessage(hello: Partial<IntentMessage>): Buffer {
  return encodeObject({
    dashboard_id: hello.dashboardId,
    label: hello.label,
    friendly_name: hello.friendlyName,
    ha_addon: hello.haAddon,
    label_auto: hello.labelAuto,
    pairing_key: hello.pairingKey,
    connect_back_port: hello.connectBackPort === 0 ? undefined : hello.connectBackPort,
    peer_link_port: hello.peerLinkPort,
  });
}

/** Reads the third handshake message. Anything but a JSON object counts as an empty one. */
export function decodeIntentMessage(payload: Buffer): IntentMessage {
  const fields: WireObject = decodeObject(payload) ?? {};
  const pairingKey = textOrEmpty(fields['pairing_key']);
  const peerLinkPort = portOrZero(fields['peer_link_port']);
  return {
    dashboardId: textOrEmpty(fields['dashboard_id']),
    label: displayName(fields['label']),
    friendlyName: displayName(fields['friendly_name']),
    haAddon: fields['ha_addon'] === true,
    labelAuto: fields['label_auto'] === true,
    connectBackPort: portOrZero(fields['connect_back_port']),
    ...(pairingKey === '' ? {} : { pairingKey }),
    ...(peerLinkPort === 0 ? {} : { peerLinkPort }),
  };
}

/** Reads the answer to an intent; undefined if it is malformed. */
export function decodeAnswer(plaintext: Buffer): IntentAnswer | undefined {
  return intentAnswer.safeParse(decodeObject(plaintext)).data;
}

function textOrEmpty(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

function displayName(value: unknown): string {
  return Array.from(textOrEmpty(value).trim()).slice(0, maxNameLength).join('');
}

function portOrZero(value: unknown): number {
  return Number.isInteger(value) && (value as number) >= 1 && (value as number) <= maxPort
    ? (value as number)
    : 0;
}
