// What the gateway shows of a session's recordings. The token goes in a header, or as a subprotocol; nothing is cached.

import { ask, refusal } from '../api.ts';
import type { Link } from '../link.ts';
import { plain } from '../text.ts';

/** One recording, as the list tells it. Texts are fit to be shown. */
export interface Item {
  readonly id: string;
  readonly state: string;
  readonly reason: string;
  /** Where it lies; empty until it is sealed. */
  readonly location: string;
  readonly live: boolean;
  /** Milliseconds since 1970; `null`: unknown. */
  readonly startedAt: number | null;
  readonly seconds: number | null;
  readonly command: string;
  readonly container: string;
  readonly pod: string;
  readonly end: string;
  readonly transfers: number;
  readonly gaps: number;
  readonly encrypted: boolean;
}

/** The recordings of a session, newest first. */
export interface List {
  readonly session: string;
  readonly viewer: string;
  readonly items: readonly Item[];
  /** Whether there are older ones that are not told. */
  readonly more: boolean;
}

const ID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
/** What a live view speaks. */
export const LIVE = 'live.drawbridge.dev';

function address(link: Link, rest: string): URL {
  return new URL(`../sessions/${link.namespace}/${link.name}/recordings${rest}`, document.baseURI);
}

/** Where a recording that is being made can be followed. */
export function liveAddress(link: Link, id: string): URL {
  const url = address(link, `/${id}/live`);
  url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
  return url;
}

/** The recordings. Throws `Refused`. */
export async function list(link: Link): Promise<List> {
  const response = await ask(link, 'GET', address(link, ''));
  if (!response.ok) throw await refusal(response);
  const json = (await response.json()) as Record<string, unknown>;
  const session = (json['session'] ?? {}) as Record<string, unknown>;
  const items = Array.isArray(json['recordings']) ? (json['recordings'] as Record<string, unknown>[]) : [];
  return {
    session: plain(session['name'], 63),
    viewer: plain(json['viewer'], 512),
    items: items.flatMap(item),
    more: json['more'] === true,
  };
}

function item(json: Record<string, unknown>): Item[] {
  const id = plain(json['id'], 36);
  if (!ID.test(id)) return [];
  const time = typeof json['startedAt'] === 'string' ? Date.parse(json['startedAt']) : Number.NaN;
  const number = (value: unknown): number => (typeof value === 'number' ? value : 0);
  const end = (json['end'] ?? {}) as Record<string, unknown>;
  const exit = typeof end['exitCode'] === 'number' ? `, exit code ${end['exitCode']}` : '';
  const argv = Array.isArray(json['argv']) ? json['argv'].map((word) => plain(word, 200)) : [];
  return [
    {
      id,
      state: plain(json['state'], 16),
      reason: plain(json['reason'], 200),
      location: plain(json['location'], 1024),
      live: json['live'] === true,
      startedAt: Number.isFinite(time) ? time : null,
      seconds: typeof json['durationSeconds'] === 'number' ? json['durationSeconds'] : null,
      command: argv.join(' ') || (json['mode'] === 'Attach' ? 'attached' : ''),
      container: plain(json['container'], 63),
      pod: plain(json['pod'], 253),
      end: end['reason'] === undefined ? '' : plain(end['reason'], 64) + exit,
      transfers: number(json['transfers']),
      gaps: number(json['gaps']),
      encrypted: json['encrypted'] === true,
    },
  ];
}

/** The bytes of a recording, as they come. Throws `Refused`. */
export async function cast(link: Link, id: string, stop: AbortSignal): Promise<ReadableStream<Uint8Array>> {
  const response = await ask(link, 'GET', address(link, `/${id}/cast`), stop);
  if (!response.ok) throw await refusal(response);
  if (response.body === null) throw new Error('the answer has no body');
  return response.body;
}
