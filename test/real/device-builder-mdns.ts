/**
 * Lets the real Device Builder read mDNS packets without a network: its zeroconf decodes them and keeps its cache as it
 * would on the wire, and its own code makes of that what it shows as a build server and dials.
 */
import { dirname, join } from 'node:path';

import { execa } from 'execa';

import { realDeviceBuilder } from './support.js';

export interface Questions {
  /** Packets in the order in which they are heard, in hex. */
  readonly packets: readonly string[];
  /** The instance's name in full, with a dot at its end. */
  readonly name: string;
  /** Dashboard ids whose host names are asked for. */
  readonly ids: readonly string[];
  /** Names of network adapters. */
  readonly adapters: readonly string[];
}

/** As it goes over its own WebSocket to its page. */
export interface DiscoveredPeer {
  readonly name: string;
  readonly hostname: string;
  readonly port: number;
  readonly addresses: readonly string[];
  readonly server_version: string;
  readonly esphome_version: string;
  readonly friendly_name: string;
  readonly pin_sha256: string;
  readonly remote_build_port: number;
  readonly ha_addon: boolean;
}

export interface Answers {
  /** What is known of the service after each packet; null when nothing is. */
  readonly peers: readonly (DiscoveredPeer | null)[];
  /** Host names by the rule of the original. */
  readonly hosts: readonly string[];
  /** Whether the original leaves that adapter's addresses out. */
  readonly leftOut: readonly boolean[];
}

const reader = `
import json, sys
from types import SimpleNamespace
from zeroconf import DNSCache, DNSIncoming, current_time_millis
from zeroconf._handlers.record_manager import RecordManager
from zeroconf.asyncio import AsyncServiceInfo
from esphome_device_builder.controllers.remote_build._mdns import peer_from_service_info
from esphome_device_builder.helpers.dashboard_advertise import (
    SERVICE_TYPE, _is_loopback_adapter, _is_virtual_bridge_adapter, build_mdns_hostname)

asked = json.load(sys.stdin)
zeroconf = SimpleNamespace(cache=DNSCache(), loop=None, async_notify_all=lambda: None)
records = RecordManager(zeroconf)
now = current_time_millis()

def heard(packet):
    global now
    now += 2000
    incoming = DNSIncoming(bytes.fromhex(packet), now=now)
    assert incoming.valid
    if incoming.is_response():
        records.async_updates_from_response(incoming)
    # One second passes, in which what was taken back or replaced goes.
    zeroconf.cache.async_expire(now + 1500)
    pointers = zeroconf.cache.get_all_by_details(SERVICE_TYPE, 12, 1)
    info = AsyncServiceInfo(SERVICE_TYPE, asked["name"])
    known = any(pointer.alias == asked["name"] for pointer in pointers) and info.load_from_cache(zeroconf, now + 1500)
    return peer_from_service_info(asked["name"], info).to_dict() if known else None

def left_out(name):
    adapter = SimpleNamespace(name=name, nice_name=name)
    return _is_loopback_adapter(adapter) or _is_virtual_bridge_adapter(adapter)

print(json.dumps({
    "peers": [heard(packet) for packet in asked["packets"]],
    "hosts": [build_mdns_hostname(dashboard_id=one) for one in asked["ids"]],
    "leftOut": [left_out(name) for name in asked["adapters"]],
}))
`;

/** Starts Python once. */
export async function askDeviceBuilder(questions: Questions): Promise<Answers> {
  const [program] = await realDeviceBuilder();
  const python = join(dirname(program), 'python');
  const options = { input: JSON.stringify(questions), env: { PATH: '/usr/bin:/bin' }, extendEnv: false };
  const { stdout } = await execa(python, ['-c', reader], options);
  return JSON.parse(stdout) as Answers;
}
