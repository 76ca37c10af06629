/**
 * Speaks to a real Device Builder as its web page does: JSON commands over one WebSocket. All events are kept from
 * the first one on, so a test can ask for what has happened already.
 */
import { once } from 'node:events';

import { WebSocket } from 'ws';
import { waitFor } from '../support/wait-for.js';
import type { Cleanups } from '../support/temp-dir.js';

/** A pairing as the dashboard lists it, with the fields that tests look at (Device Builder 1.26). */
export interface Pairing {
  readonly receiver_hostname: string;
  readonly receiver_port: number;
  readonly pin_sha256: string;
  readonly status: 'pending' | 'approved';
  readonly connected: boolean;
  readonly connecting: boolean;
  readonly last_connect_error: string;
  readonly esphome_version: string;
  readonly friendly_name: string;
  readonly auto_provision_supported: boolean;
  readonly reset_build_env_supported: boolean;
}

/** A job of the dashboard. `output` is emptied when it has ended: see {@link DashboardClient.outputOf}. */
export interface DashboardJob {
  readonly job_id: string;
  readonly configuration: string;
  readonly job_type: string;
  readonly status: 'queued' | 'running' | 'completed' | 'failed' | 'cancelled';
  readonly source: 'local' | 'remote';
  readonly source_pin_sha256: string;
  readonly source_label: string;
  readonly progress: number | null;
  readonly exit_code: number | null;
  readonly error: string | null;
  readonly failure_reason: string;
}

export interface DashboardEvent {
  readonly event: string;
  readonly data: Readonly<Record<string, unknown>>;
}

export interface DashboardClient {
  /** The `result` of one command; an Error with the dashboard's `error_code` and `details` when it refuses. */
  command<T>(name: string, args?: Readonly<Record<string, unknown>>): Promise<T>;
  /** Every job event so far, in order. */
  readonly events: readonly DashboardEvent[];
  /** All that a job has printed so far. */
  outputOf(jobId: string): string;
}

interface Reply {
  readonly message_id?: string;
  readonly result?: unknown;
  readonly error_code?: string;
  readonly details?: string;
  readonly event?: string;
  readonly data?: Readonly<Record<string, unknown>>;
}

const replyDeadlineMs = 30_000;

/** Connects to a dashboard on this machine and follows its jobs. The socket is ended after the test. */
export async function connectDashboard(t: Cleanups, port: number): Promise<DashboardClient> {
  const replies = new Map<string, Reply>();
  const events: DashboardEvent[] = [];
  const socket = new WebSocket(`ws://127.0.0.1:${port}/ws`);
  t.after(() => socket.terminate());
  socket.on('message', (data: Buffer) => {
    const reply = JSON.parse(data.toString()) as Reply;
    if (reply.event !== undefined) events.push({ event: reply.event, data: reply.data ?? {} });
    else if (reply.message_id !== undefined) replies.set(reply.message_id, reply);
  });
  await once(socket, 'open');

  let lastId = 0;
  const send = (command: string, args: Readonly<Record<string, unknown>>): string => {
    const id = String(++lastId);
    socket.send(JSON.stringify({ message_id: id, command, args }));
    return id;
  };
  send('firmware/follow_jobs', {});
  return {
    events,
    async command<T>(name: string, args: Readonly<Record<string, unknown>> = {}): Promise<T> {
      const id = send(name, args);
      const reply = await waitFor(() => replies.get(id), {
        deadlineMs: replyDeadlineMs,
        what: `an answer to ${name}`,
      });
      replies.delete(id);
      if (reply.error_code !== undefined)
        throw new Error(`${name}: ${reply.error_code}: ${reply.details ?? ''}`);
      return reply.result as T;
    },
    outputOf: (jobId) =>
      events
        .filter(({ event, data }) => event === 'job_output' && data.job_id === jobId)
        .map(({ data }) => String(data.line))
        .join(''),
  };
}
