// Chromium, pages of sessions in it, and what must hold for every one of them.

import assert from 'node:assert/strict';
import { connect, createServer } from 'node:net';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';

import { chromium } from 'playwright-core';

import { gateway } from './cluster.js';

const PATIENCE = 20_000;

/** Chromium without its own conversations with other hosts. `webgl`: draw by WebGL, as most browsers do. */
export function launch({ webgl = false } = {}) {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: [
      '--no-sandbox', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync',
      ...(webgl ? ['--use-angle=swiftshader', '--enable-unsafe-swiftshader'] : ['--disable-gpu', '--disable-3d-apis']),
    ],
  });
}

/** A connection to the gateway that can be cut, as networks do. */
export async function wire() {
  const open = new Set();
  let up = true;
  const server = createServer((client) => {
    if (!up) return client.destroy();
    const upstream = connect({ host: gateway.hostname, port: Number(gateway.port || 443) });
    for (const [socket, other] of [[client, upstream], [upstream, client]]) {
      open.add(socket);
      socket.on('error', () => {});
      socket.on('close', () => {
        open.delete(socket);
        other.destroy();
      });
      socket.pipe(other);
    }
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: new URL(`${gateway.protocol}//127.0.0.1:${server.address().port}`),
    cut() {
      up = false;
      for (const socket of open) socket.destroy();
    },
    mend: () => (up = true),
    close() {
      this.cut();
      server.close();
    },
  };
}

/**
 * The page of a session, once its terminal is open, and at the end of the test `t` a look at what no page may do: break its own
 * policy, write to the console, ask another host, show the token anywhere, or speak first to the clipboard.
 */
export async function open(t, browser, session, options = {}) {
  const { base = gateway, permissions = [], before, wait = true, allow = [], hosts = [], ...more } = options;
  const context = await browser.newContext({
    ignoreHTTPSErrors: true, // the gateway's certificate is the test's own
    viewport: { width: 1100, height: 700 },
    baseURL: base.href,
    permissions,
    ...more,
  });
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE);
  const faults = [];
  const requests = [];
  page.on('console', (message) => faults.push(`console ${message.type()}: ${message.text()}`));
  page.on('pageerror', (error) => faults.push(`script: ${error.stack}`));
  page.on('dialog', (dialog) => void dialog.accept());
  context.on('request', (request) => requests.push(request));
  await page.exposeBinding('reportFault', (_source, text) => faults.push(text));
  await page.addInitScript(() => {
    document.addEventListener('securitypolicyviolation', (event) => {
      void window.reportFault(`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sample} ${event.sourceFile}:${event.lineNumber}`);
    });
  });
  await before?.(page, context);
  const finish = async () => {
    try {
      await guard(page, context, session.token, base, requests, faults, allow, hosts);
    } finally {
      await context.close();
    }
  };
  t.after(finish);
  await page.goto(session.link);
  const terminal = new Screen(page);
  if (wait) await terminal.ready();
  return { page, context, terminal, faults, requests };
}

async function guard(page, context, token, base, requests, faults, allow, hosts) {
  const unexpected = faults.filter((fault) => !allow.some((pattern) => pattern.test(fault)));
  assert.deepEqual(unexpected, [], 'the page did what it should not');
  const secret = token.split('.').at(-1);
  const told = Buffer.from(token).toString('base64url');
  for (const request of requests) {
    const url = new URL(request.url());
    assert.ok(url.host === base.host || hosts.includes(url.host), `a request to another host: ${url}`);
    assert.ok(!url.href.includes(secret) || request.isNavigationRequest(), `the token is in ${url}`);
    const origin = request.serviceWorker() ? null : request.frame().page();
    if (origin?.isClosed()) continue; // no headers are kept of a page that is gone
    const headers = await request.allHeaders();
    // Without this header it was answered by a cache, or not sent: then these are not the headers that were sent.
    if ('sec-fetch-site' in headers) assert.equal(headers.referer, undefined, `${url} was told where it came from`);
    assert.equal(headers.cookie, undefined);
  }
  if (page.isClosed()) return;
  assert.ok(!page.url().includes(secret), 'the token is in the address bar');
  assert.deepEqual(await context.cookies(), []);
  const kept = await page.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }, history.state, document.documentElement.outerHTML]));
  assert.ok(!kept.includes(secret) && !kept.includes(told), 'the token is kept where other pages or people can find it');
}

/** The terminal in front, as a person sees it. */
export class Screen {
  constructor(page) {
    this.page = page;
    this.panel = page.locator('.panel:not([hidden])');
  }

  async ready() {
    await this.panel.and(this.page.locator('[data-state=open]')).waitFor();
    await this.until(/[#$] *$/m, 'a prompt');
  }

  /** The lines on the screen. */
  async text() {
    const rows = await this.panel.locator('.xterm-rows > div, .xterm-accessibility-tree > div').allTextContents();
    return rows.map((row) => row.replaceAll('\u00a0', ' ').trimEnd()).join('\n');
  }

  /** Waits until the screen shows something. */
  async until(pattern, what = String(pattern), limit = PATIENCE) {
    const end = Date.now() + limit;
    for (;;) {
      const text = await this.text();
      const found = text.match(pattern);
      if (found) return found;
      assert.ok(Date.now() < end, `waited for ${what}; the screen shows:\n${text}`);
      await this.page.waitForTimeout(50);
    }
  }

  /** Types a line and Enter. */
  async line(text) {
    await this.panel.locator('.xterm-helper-textarea').focus();
    await this.page.keyboard.type(text);
    await this.page.keyboard.press('Enter');
  }

  /** What is shown when it has ended. */
  card() {
    return this.panel.locator('.card');
  }
}

/** A picture of the page, into BROWSER_TEST_SHOTS if that is set. */
export async function shot(page, name) {
  const folder = process.env.BROWSER_TEST_SHOTS;
  if (!folder) return;
  await mkdir(folder, { recursive: true });
  await page.screenshot({ path: join(folder, `${name}.png`) });
}
