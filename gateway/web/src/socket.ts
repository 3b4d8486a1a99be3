// One connection to the pod: frames in order, both ways, without holding more than a little of either.
//
// A plain WebSocket cannot be told to wait: what its page does not keep up with piles up in the browser. WebSocketStream can,
// and then the gateway, and at last the process in the pod, wait for the reader. Where there is none the pile is bounded.

import { decode, MAX_INPUT, resize, stdin, type Status, SUBPROTOCOLS } from './channel.ts';

/** What became of a connection. */
export interface Closed {
  /** Whether it was open at all. */
  readonly opened: boolean;
  /** What the gateway said; `null`: it was lost. */
  readonly status: Status | null;
  /** Why this page gave it up; `null`: it did not. */
  readonly gaveUp: string | null;
}

/** Who is told. */
export interface Receiver {
  opened(): void;
  /** Resolves when more output is welcome. */
  output(bytes: Uint8Array): Promise<void>;
  /** Told once, after all output. */
  closed(end: Closed): void;
}

/** Input that waits to be sent, in bytes; more is refused. A pasted file fits, an endless one does not. */
const MAX_WAITING = 16 * 1024 * 1024;
/** Output that waits to be shown where the connection cannot be made to wait, in bytes. */
const MAX_PILE = 64 * 1024 * 1024;
/** Bytes a plain WebSocket may have accepted and not sent. */
const MAX_BUFFERED = 256 * 1024;
/** How often a full WebSocket is looked at, in milliseconds: it does not say when it has room. */
const LOOK_AGAIN = 10;

interface StreamConnection {
  readonly readable: ReadableStream<ArrayBuffer | string>;
  readonly writable: WritableStream<Uint8Array<ArrayBuffer>>;
}
interface WebSocketStreamLike {
  readonly opened: Promise<StreamConnection>;
  readonly closed: Promise<unknown>;
  close(): void;
}
type WebSocketStreamClass = new (url: string, options: { protocols: string[] }) => WebSocketStreamLike;

/** Frames, whatever carries them. */
interface Carrier {
  readonly opened: Promise<void>;
  /** The next frame; `null` after the last. Rejects when the connection breaks. */
  next(): Promise<ArrayBuffer | string | null>;
  /** Resolves when another may follow. */
  send(frame: Uint8Array<ArrayBuffer>): Promise<void>;
  close(): void;
}

function streamCarrier(WebSocketStream: WebSocketStreamClass, url: string, protocols: string[]): Carrier {
  const stream = new WebSocketStream(url, { protocols });
  stream.closed.catch(() => {}); // the reader tells
  const parts = stream.opened.then(({ readable, writable }) => ({ reader: readable.getReader(), writer: writable.getWriter() }));
  parts.then(({ writer }) => writer.closed.catch(() => {})).catch(() => {});
  return {
    opened: parts.then(() => {}),
    async next() {
      const { value, done } = await (await parts).reader.read();
      return done ? null : value;
    },
    async send(frame) {
      const { writer } = await parts;
      await writer.ready;
      await writer.write(frame);
    },
    close: () => stream.close(),
  };
}

function plainCarrier(url: string, protocols: string[]): Carrier {
  const socket = new WebSocket(url, protocols);
  socket.binaryType = 'arraybuffer';
  const pile: (ArrayBuffer | string)[] = [];
  let bytes = 0;
  let ended: 'closed' | 'overrun' | null = null;
  let wake = (): void => {};
  const opened = new Promise<void>((resolve, reject) => {
    socket.onopen = () => resolve();
    socket.onclose = () => {
      ended ??= 'closed';
      reject(new Error('refused'));
      wake();
    };
  });
  socket.onmessage = ({ data }: MessageEvent<ArrayBuffer | string>) => {
    if (ended !== null) return;
    pile.push(data);
    bytes += typeof data === 'string' ? data.length : data.byteLength;
    if (bytes > MAX_PILE) {
      ended = 'overrun';
      pile.length = 0;
      socket.close();
    }
    wake();
  };
  return {
    opened,
    async next() {
      for (;;) {
        const data = pile.shift();
        if (data !== undefined) {
          bytes -= typeof data === 'string' ? data.length : data.byteLength;
          return data;
        }
        if (ended === 'overrun') throw new Overrun();
        if (ended === 'closed') return null;
        await new Promise<void>((resolve) => (wake = resolve));
      }
    },
    async send(frame) {
      while (socket.bufferedAmount > MAX_BUFFERED) await new Promise((resolve) => setTimeout(resolve, LOOK_AGAIN));
      if (socket.readyState !== WebSocket.OPEN) throw new Error('closed');
      socket.send(frame);
    },
    close: () => socket.close(),
  };
}

class Overrun extends Error {}

/** An open connection, or one that is being opened. */
export class Connection {
  readonly #carrier: Carrier;
  readonly #receiver: Receiver;
  #waiting: Uint8Array[] = [];
  #waitingBytes = 0;
  #size: [number, number] | null = null;
  #sending = false;
  #open = false;
  #over = false;

  /** Connects at once. `bearer` is the subprotocol that carries the token. */
  constructor(url: URL, bearer: string, receiver: Receiver) {
    const address = new URL(url);
    address.protocol = address.protocol === 'https:' ? 'wss:' : 'ws:';
    const protocols = [bearer, ...SUBPROTOCOLS];
    const stream = (globalThis as { WebSocketStream?: WebSocketStreamClass }).WebSocketStream;
    this.#carrier = stream ? streamCarrier(stream, address.href, protocols) : plainCarrier(address.href, protocols);
    this.#receiver = receiver;
    void this.#receive();
  }

  async #receive(): Promise<void> {
    let status: Status | null = null;
    let gaveUp: string | null = null;
    let opened = false;
    try {
      await this.#carrier.opened;
      opened = this.#open = true;
      if (!this.#over) this.#receiver.opened();
      void this.#send();
      for (let data = await this.#carrier.next(); data !== null; data = await this.#carrier.next()) {
        const frame = decode(data);
        if (frame.kind === 'output') await this.#receiver.output(frame.bytes);
        if (frame.kind === 'status') status = frame.status;
      }
    } catch (error) {
      // A break after the status takes nothing away from it.
      if (error instanceof Overrun) gaveUp = 'There was more output than this browser could show in time.';
    }
    this.#open = false;
    if (this.#over) return;
    this.#over = true;
    this.#receiver.closed({ opened, status, gaveUp });
  }

  /** Sends input, in order; `false`: too much is waiting already, and none of it was taken. */
  input(bytes: Uint8Array): boolean {
    if (this.#over) return true;
    if (this.#waitingBytes + bytes.length > MAX_WAITING) return false;
    for (let at = 0; at < bytes.length; at += MAX_INPUT) this.#waiting.push(bytes.subarray(at, at + MAX_INPUT));
    this.#waitingBytes += bytes.length;
    void this.#send();
    return true;
  }

  /** Tells the terminal's size; of several in a row only the last is sent. */
  resize(columns: number, rows: number): void {
    this.#size = [columns, rows];
    void this.#send();
  }

  async #send(): Promise<void> {
    if (this.#sending || !this.#open) return;
    this.#sending = true;
    try {
      while (this.#size !== null || this.#waiting.length > 0) {
        if (this.#size !== null) {
          const [columns, rows] = this.#size;
          this.#size = null;
          await this.#carrier.send(resize(columns, rows));
          continue;
        }
        const next = this.#waiting.shift();
        if (next === undefined) break;
        await this.#carrier.send(stdin(next));
        this.#waitingBytes -= next.length;
      }
    } catch {
      // The connection is gone; the receiver is told by the other loop.
    } finally {
      this.#sending = false;
    }
  }

  /** Hangs up; the receiver is told nothing more. */
  close(): void {
    this.#over = true;
    this.#carrier.close();
  }
}
