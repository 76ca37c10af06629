/**
 * What the peer link needs from a connection: one ordered, reliable stream of binary messages.
 *
 * The link knows no socket library; a mount joins one to this interface, and tests join two ends in memory.
 * Messages that arrive before `start` are kept, because a peer may speak while the receiver still looks at its
 * address: a lost first message looks like a handshake that never ends.
 */

/** What a transport reports. The functions are called one at a time, in the order of arrival, never inside `start`. */
export interface TransportEvents {
  /** One whole binary message. The buffer belongs to the listener. */
  message(data: Buffer): void;
  /** A text message arrived, which the peer link does not know. Its content is dropped. */
  text(): void;
  /** The connection has ended, from whichever side. Called exactly once, after the last message. */
  closed(): void;
}

export interface Transport {
  /** The address of the other side, without port and without the prefix of an IPv4 address in IPv6. */
  readonly remoteAddress: string;
  /** Bytes that were sent here but have not left this process. */
  readonly bufferedBytes: number;
  /** Begins the delivery. Called once. */
  start(events: TransportEvents): void;
  /** Sends one binary message. Never throws; after the end the message is dropped. */
  send(data: Uint8Array): void;
  /** Resolves when `bufferedBytes` is at most `maxBytes`, or when the connection has ended. Never rejects. */
  drained(maxBytes: number): Promise<void>;
  /** Stops reading from the other side. The end of the connection may go unnoticed until `resume`. */
  pause(): void;
  resume(): void;
  /** Sends what is buffered, then ends the connection in good order. `code` is a WebSocket close code. */
  close(code?: number): void;
  /** Ends the connection at once and drops what is buffered. */
  destroy(): void;
}
