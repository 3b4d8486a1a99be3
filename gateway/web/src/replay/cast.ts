// The lines of a recording: asciicast v2, and the events that only our recordings have. Pure.
//
// A recording is as hostile as what it recorded: every field is checked, and what makes no sense is left out and counted.

import { plain } from '../text.ts';

/** Who, where and how. Texts are fit to be shown. */
export interface Facts {
  readonly columns: number;
  readonly rows: number;
  /** Milliseconds since 1970. */
  readonly startedAt: number;
  readonly user: string;
  readonly pod: string;
  readonly container: string;
  readonly command: string;
  readonly tty: boolean;
}

/** Something that happened, `at` seconds after the beginning. */
export type Event = { readonly at: number } & (
  | { readonly kind: 'output'; readonly bytes: Uint8Array; readonly stderr: boolean }
  | { readonly kind: 'resize'; readonly columns: number; readonly rows: number }
  | { readonly kind: 'input'; readonly text: string }
  /** A note: of what was typed and is not told, of a transfer, of the gateway, of what is missing. */
  | { readonly kind: 'hidden' | 'transfer' | 'note' | 'gap'; readonly text: string }
  | { readonly kind: 'end'; readonly text: string }
);

/** Longest line read, in bytes. Recordings have none of more than a quarter of a MiB. */
const MAX_LINE = 2 * 1024 * 1024;
/** Largest terminal, in columns or rows: nobody has one, and the browser would choke on it. */
const MAX_SIDE = 1000;
const USUAL = [80, 24] as const;

/** Reads a recording from bytes as they come. */
export class CastReader {
  facts: Facts | null = null;
  /** Lines that made no sense. */
  strange = 0;
  #rest: Uint8Array[] = [];
  #restBytes = 0;
  #skipping = false;
  #raw: Uint8Array | null = null;
  #last = 0;
  readonly #decoder = new TextDecoder();

  /** The events in the lines that end in `bytes`. */
  *read(bytes: Uint8Array): Generator<Event> {
    let from = 0;
    for (;;) {
      const end = bytes.indexOf(10, from);
      if (end < 0) break;
      const line = this.#line(bytes.subarray(from, end));
      from = end + 1;
      const event = line === null ? null : this.#event(line);
      if (event !== null) yield event;
    }
    const rest = bytes.subarray(from);
    if (this.#restBytes + rest.length > MAX_LINE) {
      this.#skipping = true;
      this.#rest = [];
      this.#restBytes = 0;
    } else if (!this.#skipping && rest.length > 0) {
      this.#rest.push(rest.slice());
      this.#restBytes += rest.length;
    }
  }

  #line(end: Uint8Array): string | null {
    if (this.#skipping) {
      this.#skipping = false;
      this.strange += 1;
      return null;
    }
    if (this.#rest.length === 0) return this.#decoder.decode(end);
    const whole = new Uint8Array(this.#restBytes + end.length);
    let at = 0;
    for (const part of [...this.#rest, end]) {
      whole.set(part, at);
      at += part.length;
    }
    this.#rest = [];
    this.#restBytes = 0;
    return this.#decoder.decode(whole);
  }

  #event(line: string): Event | null {
    let json: unknown;
    try {
      json = JSON.parse(line);
    } catch {
      this.strange += 1;
      return null;
    }
    if (this.facts === null) {
      this.facts = facts(json);
      return null;
    }
    const event = this.#read(json);
    if (event === undefined) this.strange += 1;
    return event ?? null;
  }

  /** `null`: part of the next one; `undefined`: it makes no sense. */
  #read(json: unknown): Event | null | undefined {
    if (!Array.isArray(json)) return undefined;
    const [time, code, data] = json as unknown[];
    if (typeof time !== 'number' || !Number.isFinite(time) || typeof data !== 'string') return undefined;
    const at = (this.#last = Math.max(this.#last, time));
    const raw = this.#raw;
    this.#raw = null;
    switch (code) {
      case 'b':
        this.#raw = base64(data);
        return null;
      case 'o':
      case 'e':
        // A payload that nobody would want to see has no text.
        if (data === '') return null;
        return { at, kind: 'output', bytes: raw ?? new TextEncoder().encode(data), stderr: code === 'e' };
      case 'i':
        return data === '' ? null : { at, kind: 'input', text: data };
      case 'r': {
        const [columns, rows] = data.split('x').map(Number);
        if (!side(columns) || !side(rows)) return undefined;
        return { at, kind: 'resize', columns, rows };
      }
      case 'm':
        return { at, kind: 'note', text: plain(data) };
      case 'h':
        return { at, kind: 'hidden', text: `${Number(data) || 0} bytes typed, not recorded` };
      case 'x':
        return { at, kind: 'transfer', text: transfer(object(data)) };
      case 'g': {
        const gap = object(data);
        return { at, kind: 'gap', text: `${bytes(gap['bytes'])} of ${plain(gap['stream'], 16)} are missing` };
      }
      case 'z': {
        const end = object(data);
        const exit = typeof end['exitCode'] === 'number' ? `, exit code ${end['exitCode']}` : '';
        return { at, kind: 'end', text: `${plain(end['reason'], 64) || 'Ended'}${exit}` };
      }
      default:
        return undefined;
    }
  }
}

function side(n: number | undefined): n is number {
  return n !== undefined && Number.isInteger(n) && n > 0 && n <= MAX_SIDE;
}

function object(text: string): Record<string, unknown> {
  try {
    const json: unknown = JSON.parse(text);
    return typeof json === 'object' && json !== null ? (json as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}

function base64(text: string): Uint8Array | null {
  try {
    return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  } catch {
    return null;
  }
}

function transfer(json: Record<string, unknown>): string {
  const hash = plain(json['sha256'], 64);
  return `${bytes(json['bytes'])} over ${plain(json['stream'], 16) || '?'}${hash === '' ? '' : `, SHA-256 ${hash}`}`;
}

/** `1536` as `1.5 KiB`. */
export function bytes(count: unknown): string {
  let n = typeof count === 'number' && Number.isFinite(count) && count >= 0 ? count : 0;
  const units = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  while (n >= 1024 && unit < units.length - 1) {
    n /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? n : n.toFixed(1)} ${units[unit]}`;
}

function facts(json: unknown): Facts {
  const head = (typeof json === 'object' && json !== null ? json : {}) as Record<string, unknown>;
  const more = (head['drawbridge'] ?? {}) as Record<string, unknown>;
  const pod = (more['pod'] ?? {}) as Record<string, unknown>;
  const [columns, rows] = [head['width'], head['height']] as (number | undefined)[];
  const startedAt = typeof more['startedAt'] === 'string' ? Date.parse(more['startedAt']) : Number.NaN;
  const timestamp = typeof head['timestamp'] === 'number' ? head['timestamp'] * 1000 : 0;
  return {
    columns: side(columns) ? columns : USUAL[0],
    rows: side(rows) ? rows : USUAL[1],
    startedAt: Number.isFinite(startedAt) ? startedAt : timestamp,
    user: plain(more['user'], 512),
    pod: plain(pod['name'], 253),
    container: plain(pod['container'], 63),
    command: plain(head['command'], 4096),
    tty: more['tty'] !== false,
  };
}
