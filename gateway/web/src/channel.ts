// The frames of `v4.channel.k8s.io` and `v5.channel.k8s.io`: one byte that names a channel, then its bytes. Pure.

import { plain } from './text.ts';

/** Newest first; a terminal needs nothing that only v5 has. */
export const SUBPROTOCOLS = ['v5.channel.k8s.io', 'v4.channel.k8s.io'] as const;

const STDIN = 0;
const STDOUT = 1;
const STDERR = 2;
const STATUS = 3;
const RESIZE = 4;

/** Longest input in one frame, in bytes. */
export const MAX_INPUT = 32 * 1024;

/** How a command ended, or why its connection did. */
export interface Status {
  readonly success: boolean;
  /** The exit code, if it ran to its end. */
  readonly exitCode: number | null;
  readonly reason: string;
  readonly message: string;
}

/** What a frame from the gateway holds. */
export type Frame =
  | { readonly kind: 'output'; readonly bytes: Uint8Array }
  | { readonly kind: 'status'; readonly status: Status }
  | { readonly kind: 'nothing' };

/** Reads one frame. What nobody promised to send is nothing. */
export function decode(data: ArrayBuffer | string): Frame {
  if (typeof data === 'string') return { kind: 'nothing' };
  const bytes = new Uint8Array(data);
  const rest = bytes.subarray(1);
  switch (bytes[0]) {
    case STDOUT:
    case STDERR:
      return rest.length > 0 ? { kind: 'output', bytes: rest } : { kind: 'nothing' };
    case STATUS:
      return { kind: 'status', status: status(new TextDecoder().decode(rest)) };
    default:
      return { kind: 'nothing' };
  }
}

function status(text: string): Status {
  let json: Record<string, unknown>;
  try {
    json = JSON.parse(text) as Record<string, unknown>;
  } catch {
    return { success: false, exitCode: null, reason: '', message: plain(text) };
  }
  const success = json['status'] === 'Success';
  const reason = plain(json['reason'], 64);
  return { success, exitCode: success ? 0 : exitCode(reason, json), reason, message: plain(json['message']) };
}

function exitCode(reason: string, json: Record<string, unknown>): number | null {
  if (reason !== 'NonZeroExitCode') return null;
  const causes = (json['details'] as { causes?: unknown } | undefined)?.causes;
  if (!Array.isArray(causes)) return null;
  const cause = causes.find((cause: { reason?: unknown }) => cause?.reason === 'ExitCode') as { message?: unknown } | undefined;
  const code = Number(cause?.message);
  return Number.isInteger(code) ? code : null;
}

/** Input of at most {@link MAX_INPUT} bytes. */
export function stdin(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const frame = new Uint8Array(1 + bytes.length);
  frame[0] = STDIN;
  frame.set(bytes, 1);
  return frame;
}

/** A new size of the terminal. */
export function resize(columns: number, rows: number): Uint8Array<ArrayBuffer> {
  const json = new TextEncoder().encode(JSON.stringify({ Width: columns, Height: rows }));
  const frame = new Uint8Array(1 + json.length);
  frame[0] = RESIZE;
  frame.set(json, 1);
  return frame;
}
