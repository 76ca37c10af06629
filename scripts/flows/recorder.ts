/**
 * Records which functions of `src` this process calls, in its main thread and in the workers of `src`, by V8's precise
 * coverage.
 *
 * V8 counts calls and keeps no times, so the counters are read and reset on every turn of the event loop: the turn in
 * which a file first shows up gives its place in the order.
 */
import { Session, type Profiler } from 'node:inspector';
import { setImmediate as turn } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

/** What one thread called between two readings of its counters. */
export interface Slice {
  /** What the receiver was doing. */
  readonly step: string;
  readonly thread: 'main' | 'worker';
  /** Functions as `name@offset`, by the path of their file; the name of a closure is empty. */
  readonly calls: ReadonlyMap<string, readonly string[]>;
}

export interface Recorder {
  /** Waits until `src` is idle, and records from then on. */
  begin(step: string): Promise<void>;
  /** Ends the current step and begins another one. Does nothing unless a recording runs. */
  step(name: string): void;
  /** Waits until `src` is idle, and ends the recording. */
  end(): Promise<readonly Slice[]>;
}

type Coverage = readonly Profiler.ScriptCoverage[];

const root = new URL('../../', import.meta.url);
const src = new URL('src/', root).href;
const counting = { callCount: true, detailed: true };
/** The receiver is idle once nothing of `src` was called for as long. */
const idleMs = 400;
const deadlineMs = 10_000;
/** esbuild gives every module these functions of its own. */
const helpers = new Set(['__name', '__export']);

/** Call it before `src` is loaded. The process needs no debugger port. */
export function startRecorder(): Recorder {
  const session = new Session();
  const workers = new Map<string, CountedWorker>();
  let slices: Slice[] = [];
  let step: string | null = null;
  let reading: Promise<void> = Promise.resolve();
  let lastCallAt = 0;

  session.connect();
  session.on('NodeWorker.attachedToWorker', ({ params: { sessionId, workerInfo } }) => {
    // Node runs the loader of tsx in a worker as well; it may block, and is let go uncounted.
    if (workerInfo.url.startsWith(src)) workers.set(sessionId, countWorker(session, sessionId));
    else tellWorker(session, sessionId, { id: 0, method: 'Runtime.runIfWaitingForDebugger' });
  });
  session.on('NodeWorker.detachedFromWorker', ({ params: { sessionId } }) => {
    workers.get(sessionId)?.detached();
    workers.delete(sessionId);
  });
  session.on('NodeWorker.receivedMessageFromWorker', ({ params: { sessionId, message } }) => {
    workers.get(sessionId)?.answered(JSON.parse(message) as WorkerAnswer);
  });
  session.post('Profiler.enable');
  session.post('Profiler.startPreciseCoverage', counting);
  session.post('NodeWorker.enable', { waitForDebuggerOnStart: true });

  function add(thread: Slice['thread'], coverage: Coverage): void {
    const calls = callsOf(coverage);
    if (step === null || calls.size === 0) return;
    lastCallAt = performance.now();
    slices.push({ step, thread, calls });
  }

  /** A session of the own thread answers before `post` returns. */
  function readMain(): void {
    session.post('Profiler.takePreciseCoverage', (error, { result }) => {
      if (error) throw error;
      add('main', result);
    });
  }

  async function readAll(): Promise<void> {
    readMain();
    for (const worker of workers.values()) add('worker', await worker.read());
  }

  async function readEveryTurn(): Promise<void> {
    for (;;) {
      await turn();
      if (step === null) return;
      await readAll();
    }
  }

  async function untilIdle(): Promise<void> {
    const deadline = performance.now() + deadlineMs;
    lastCallAt = performance.now();
    while (performance.now() - lastCallAt < idleMs) {
      if (performance.now() > deadline) throw new Error(`the receiver was not idle within ${deadlineMs} ms`);
      await turn();
    }
  }

  return {
    async begin(name) {
      step = 'before';
      reading = readEveryTurn();
      await untilIdle();
      slices = [];
      step = name;
    },
    step(name) {
      if (step === null) return;
      readMain();
      step = name;
    },
    async end() {
      await untilIdle();
      step = null;
      await reading;
      return slices;
    },
  };
}

interface CountedWorker {
  /** Reads and resets its counters. */
  read(): Promise<Coverage>;
  answered(answer: WorkerAnswer): void;
  detached(): void;
}

interface WorkerAnswer {
  readonly id?: number;
  readonly result?: { readonly result?: Coverage };
}

/** Starts the counters of a worker that has not run anything yet, and lets it go. */
function countWorker(session: Session, sessionId: string): CountedWorker {
  const asked = new Map<number, (coverage: Coverage) => void>();
  let last = 0;

  function tell(method: string, params: object = {}): void {
    last += 1;
    tellWorker(session, sessionId, { id: last, method, params });
  }

  tell('Profiler.enable');
  tell('Profiler.startPreciseCoverage', counting);
  tell('Runtime.runIfWaitingForDebugger');
  return {
    read: () =>
      new Promise((resolve) => {
        // The answer can come before `tell` returns.
        asked.set(last + 1, resolve);
        tell('Profiler.takePreciseCoverage');
      }),
    answered({ id = 0, result }) {
      asked.get(id)?.(result?.result ?? []);
      asked.delete(id);
    },
    detached() {
      for (const resolve of asked.values()) resolve([]);
      asked.clear();
    },
  };
}

function tellWorker(session: Session, sessionId: string, message: object): void {
  session.post('NodeWorker.sendMessageToWorker', { sessionId, message: JSON.stringify(message) });
}

/** A module's top level is left out: it runs when the module is loaded, not when somebody uses it. */
function callsOf(coverage: Coverage): Map<string, string[]> {
  const calls = new Map<string, string[]>();
  for (const { url, functions } of coverage) {
    if (!url.startsWith(src)) continue;
    const called = functions.flatMap(({ functionName, ranges: [whole] }) => {
      const isCalled = whole !== undefined && whole.count > 0 && whole.startOffset > 0;
      return isCalled && !helpers.has(functionName) ? [`${functionName}@${whole.startOffset}`] : [];
    });
    if (called.length > 0) calls.set(pathOf(url), called);
  }
  return calls;
}

/** The path of a source file below the root of the package; tsx can add a query to its URL. */
function pathOf(url: string): string {
  return fileURLToPath(url.replace(/[?#].*$/, ''))
    .slice(fileURLToPath(root).length)
    .replaceAll('\\', '/');
}
