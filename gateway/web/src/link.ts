// The link to one session: `…/ui/#NAMESPACE/NAME/TOKEN`; to its recordings: `…/ui/replay.html#…`. Pure.
//
// What follows the `#` is never sent: not in the request, not in `Referer`, and so it is in no log on the way.

/** Which session, and what proves that its holder may use it. Kept in memory and nowhere else. */
export interface Link {
  readonly namespace: string;
  readonly name: string;
  readonly token: string;
}

const NAME = /^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$/;
/** What a session's token is. */
const JWT = /^[\w-]+\.[\w-]+\.[\w-]+$/;
/** A JWT, or whatever else an identity shows: the characters of a bearer token (RFC 6750) but the slash. */
export const ANY_TOKEN = /^[\w\-.~+]+=*$/;
/** The gateway takes no longer token. */
const MAX_TOKEN = 12 * 1024;

/** Reads a whole link, or what follows its `#`; `null` when it is none. */
export function parse(text: string, kind = JWT): Link | null {
  const fragment = text.trim().replace(/^[^#]*#/, '');
  const [namespace, name, token, ...more] = fragment.split('/');
  if (!namespace || !name || !token || more.length > 0) return null;
  if (!NAME.test(namespace) || !NAME.test(name) || !kind.test(token) || token.length > MAX_TOKEN) return null;
  return { namespace, name, token };
}

/** Takes the link out of the address, so that neither the address bar nor "back" holds the token any longer. */
export function take(kind = JWT): Link | null {
  const { hash, pathname, search } = window.location;
  if (hash === '') return null;
  window.history.replaceState(null, '', pathname + search);
  return parse(hash, kind);
}

/** The token as the subprotocol by which a browser can send one: it may set no headers on a WebSocket. */
export function bearer({ token }: Link): string {
  const base64 = btoa(token).replaceAll('+', '-').replaceAll('/', '_').replace(/=+$/, '');
  return `base64url.bearer.authorization.k8s.io.${base64}`;
}
