// What the gateway says about the session. The token goes in a header; nothing is cached, and no cookie is sent or kept.

import type { Link } from './link.ts';
import { plain } from './text.ts';

/** `GET /sessions/NAMESPACE/NAME`, as far as the page shows it. */
export interface Session {
  readonly user: string;
  readonly reason: string;
  readonly mode: string;
  readonly command: readonly string[];
  readonly pod: string;
  readonly container: string;
  /** Every container it may enter, the default one first. */
  readonly containers: readonly string[];
  /** The session it looks at; empty unless its mode is `Observe`. */
  readonly observed: string;
  readonly ready: boolean;
  readonly phase: string;
  /** Milliseconds since 1970, by this browser's clock. */
  readonly expiresAt: number | null;
  readonly maxConnections: number;
  readonly connectionsHere: number;
  readonly recorded: boolean;
}

/** An answer that is not the one asked for. */
export class Refused extends Error {
  constructor(
    /** The HTTP code; 0 when nobody answered. */
    readonly code: number,
    message: string,
  ) {
    super(message);
  }
}

/** Longest wait for an answer. */
const TIMEOUT = 15_000;

function address(link: Link, rest = ''): URL {
  return new URL(`../sessions/${link.namespace}/${link.name}${rest}`, document.baseURI);
}

/** Where a terminal is opened. */
export function consoleAddress(link: Link, container: string | null): URL {
  const url = address(link, '/console');
  if (container !== null) url.searchParams.set('container', container);
  return url;
}

/** Asks the gateway. `stop` ends it, also after the answer has begun; without, it may take {@link TIMEOUT}. Throws {@link Refused}. */
export async function ask(link: Link, method: string, url: URL, stop = AbortSignal.timeout(TIMEOUT)): Promise<Response> {
  try {
    return await fetch(url, {
      method,
      headers: { authorization: `Bearer ${link.token}` },
      cache: 'no-store',
      credentials: 'omit',
      redirect: 'error',
      referrerPolicy: 'no-referrer',
      signal: stop,
    });
  } catch {
    throw new Refused(0, 'The gateway does not answer.');
  }
}

/** The answer that is not the one asked for. */
export async function refusal(response: Response): Promise<Refused> {
  const status: unknown = await response.json().catch(() => null);
  const message = plain((status as { message?: unknown } | null)?.message);
  return new Refused(response.status, message || `The gateway answered ${response.status}.`);
}

/** What the gateway knows of the session. Throws {@link Refused}. */
export async function session(link: Link): Promise<Session> {
  const response = await ask(link, 'GET', address(link));
  if (!response.ok) throw await refusal(response);
  return read((await response.json()) as Record<string, unknown>, Date.now());
}

/**
 * Why a WebSocket was refused: browsers tell scripts nothing, so the gateway remembers it for a moment. `null`: it was not
 * refused by the gateway.
 */
export async function whyRefused(link: Link, container: string | null): Promise<Refused | null> {
  try {
    const refused = await refusal(await ask(link, 'POST', consoleAddress(link, container)));
    return refused.code === 405 ? null : refused;
  } catch {
    return null; // nobody answered
  }
}

function read(json: Record<string, unknown>, here: number): Session {
  const target = (json['target'] ?? {}) as Record<string, unknown>;
  const strings = (value: unknown): string[] => (Array.isArray(value) ? value.map((item) => plain(item, 4096)) : []);
  const time = (value: unknown): number => (typeof value === 'string' ? Date.parse(value) : Number.NaN);
  const number = (value: unknown): number => (typeof value === 'number' ? value : 0);
  // The gateway ends the session by its own clock, which this one need not agree with.
  const left = time(json['expiresAt']) - time(json['now']);
  const container = plain(target['container'], 63);
  const containers = strings(target['containers']);
  return {
    user: plain(json['user'], 512),
    reason: plain(json['reason']),
    mode: plain(json['mode']),
    command: strings(json['command']),
    pod: plain(target['pod'], 253),
    container,
    containers: containers.length > 0 ? containers : [container],
    observed: plain(json['observed'], 63),
    ready: json['phase'] === 'Ready',
    phase: plain(json['phase']),
    expiresAt: Number.isFinite(left) ? here + left : null,
    maxConnections: number(json['maxConnections']),
    connectionsHere: number(json['connectionsHere']),
    recorded: json['recorded'] === true,
  };
}
