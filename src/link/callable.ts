/**
 * Where a peer can be called back. Address and port stand in a file and have come over the wire, so a name is never
 * looked up, and an address that means nobody, everybody or this machine by another name is not dialled.
 */
import { BlockList, isIP, isIPv6 } from 'node:net';

import type { Peer } from '../peers/peer-row.js';

const nobody = new BlockList();
nobody.addSubnet('0.0.0.0', 8);
nobody.addSubnet('224.0.0.0', 4);
nobody.addSubnet('240.0.0.0', 4);
nobody.addAddress('::', 'ipv6');
nobody.addSubnet('ff00::', 8, 'ipv6');

/** Whether the peer has said a port, and was seen at a literal address. One with a zone (`fe80::1%eth0`) is in no URL. */
export function isCallable({ address, connectBackPort }: Pick<Peer, 'address' | 'connectBackPort'>): boolean {
  if (connectBackPort === 0 || isIP(address) === 0 || address.includes('%')) return false;
  return !nobody.check(address, isIPv6(address) ? 'ipv6' : 'ipv4');
}
