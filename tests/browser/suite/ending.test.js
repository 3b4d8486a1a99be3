// How a terminal ends, and what a person is told before, then and afterwards.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';

import { launch, open, Screen, shot, wire } from './browser.js';
import { gateway, namespace, revoke, session } from './cluster.js';

const browser = await launch();
after(() => browser.close());

/** What a cut connection makes the browser say by itself. */
const BROKEN = [/net::ERR_|WebSocket/];

test('the exit code is shown, and a new shell is one key away', async (t) => {
  const { page, terminal } = await open(t, browser, await session());
  await terminal.line('exit 3');
  await terminal.card().getByText('Exit code 3', { exact: true }).waitFor();
  assert.match(await terminal.card().textContent(), /ended with an error/);
  assert.equal(await page.locator('#connection-text').textContent(), 'Ended');
  await page.keyboard.press('Enter'); // the button has the focus
  await terminal.ready();
  await terminal.line('exit');
  await terminal.card().getByText('Exit code 0', { exact: true }).waitFor();
  await terminal.card().getByRole('button', { name: 'Look at the output' }).click();
  assert.ok(await terminal.card().getByRole('button', { name: 'Back' }).isVisible());
  assert.match(await terminal.text(), /exit/);
});

test('people are warned five minutes and one minute before the end', async (t) => {
  const granted = await session('web', { duration: '30m' });
  const { page, terminal } = await open(t, browser, granted, { before: (page) => page.clock.install(), colorScheme: 'dark' });
  const warning = page.getByRole('alert').filter({ hasText: 'This session ends' });
  assert.ok(await warning.isHidden());
  const forward = async (seconds) => {
    const left = await page.evaluate((end) => end - Date.now(), granted.expiresAt);
    await page.clock.fastForward(left - seconds * 1000);
  };
  await forward(301);
  assert.ok(await warning.isHidden(), 'not before its time');
  await forward(298);
  await warning.waitFor();
  assert.match(await warning.textContent(), /ends in 5 minutes/);
  assert.equal(await page.locator('body').getAttribute('data-left'), 'warn');
  await terminal.line('clear; echo do not start anything lo""ng');
  await terminal.until(/^do not start anything long$/m);
  await shot(page, 'warning');
  await page.getByRole('button', { name: 'Close the warning' }).click();
  assert.ok(await warning.isHidden());
  await forward(58);
  await warning.waitFor();
  assert.match(await warning.textContent(), /ends in (1 minute|5\d seconds)/);
  assert.equal(await page.locator('body').getAttribute('data-left'), 'danger');
});

test('at its end the session is cut, and the page says that it expired', async (t) => {
  const granted = await session('web', { duration: '1m' });
  const { page, terminal } = await open(t, browser, granted, { colorScheme: 'dark', allow: [/401/] });
  await page.getByRole('alert').filter({ hasText: /This session ends in/ }).waitFor();
  await terminal.line('clear; echo wait""ing');
  await terminal.card().getByRole('heading', { name: 'The session expired' }).waitFor({ timeout: 75_000 });
  assert.ok(Math.abs(Date.now() - granted.expiresAt) < 10_000, 'on time');
  assert.match(await terminal.card().textContent(), /No exit code/);
  assert.equal(await terminal.card().getByRole('button', { name: /shell|Reconnect/ }).count(), 0, 'nothing to reconnect to');
  assert.ok(await page.locator('#new-tab').isDisabled());
  await shot(page, 'end');
});

test('a revocation cuts the shell while it is being typed into', async (t) => {
  const granted = await session();
  const { page, terminal } = await open(t, browser, granted, { allow: [/401/] });
  await terminal.line('cat');
  let over = false;
  const typing = (async () => {
    while (!over) {
      await page.keyboard.type('typing ');
      await page.waitForTimeout(20);
    }
  })();
  await terminal.until(/typing typing/);
  await revoke(granted);
  await terminal.card().getByRole('heading', { name: 'The session was revoked' }).waitFor();
  over = true;
  await typing;
  assert.ok(await page.locator('#new-tab').isDisabled());
  assert.equal(await page.locator('#left').textContent(), 'none');
  // The same link opens nothing any more.
  await page.goto('about:blank');
  await page.goto(granted.link);
  await page.getByRole('heading', { name: 'This link opens nothing any more' }).waitFor();
  assert.match(await page.locator('#notice-text').textContent(), /session/);
});

test('after a loss the page says so, and reconnects when asked', async (t) => {
  const network = await wire();
  const { page, terminal } = await open(t, browser, await session(), { base: network.url, allow: BROKEN });
  t.after(() => network.close());
  await terminal.line('echo be""fore');
  await terminal.until(/^before$/m);
  network.cut();
  await terminal.card().getByRole('heading', { name: 'The connection was lost' }).waitFor();
  assert.equal(await page.locator('#connection-text').textContent(), 'Disconnected');
  await terminal.card().getByRole('button', { name: 'Reconnect' }).click();
  await terminal.card().getByRole('heading', { name: 'No connection' }).waitFor();
  await shot(page, 'lost');
  network.mend();
  await terminal.card().getByRole('button', { name: 'Reconnect' }).click();
  await terminal.ready();
  await terminal.line('echo af""ter');
  await terminal.until(/^after$/m);
});

test('a gateway that is not there is named as the reason, and can be asked again', async (t) => {
  const network = await wire();
  const granted = await session();
  const { page } = await open(t, browser, granted, {
    base: network.url,
    wait: false,
    allow: BROKEN,
    before: async (page) => page.route('**/sessions/**', (route) => route.abort()),
  });
  t.after(() => network.close());
  await page.getByRole('heading', { name: 'No connection' }).waitFor();
  await page.unroute('**/sessions/**');
  await page.getByRole('button', { name: 'Try again' }).click();
  await new Screen(page).ready();
});

test('the gateway’s own words tell why it opens no further terminal', async (t) => {
  const granted = await session('web', { maxConnections: 1 });
  const first = await open(t, browser, granted);
  const second = await open(t, browser, granted, { wait: false, allow: [/429|WebSocket/] });
  await second.terminal.card().getByRole('heading', { name: 'The gateway did not open it' }).waitFor();
  assert.match(await second.terminal.card().textContent(), /1 connection/);
  await first.terminal.line('exit');
  await first.terminal.card().getByText('Exit code 0').waitFor();
  await second.terminal.card().getByRole('button', { name: 'Try again' }).click();
  await second.terminal.ready();
});

test('without a link the page asks for one, takes no other text, and forgets it on reload', async (t) => {
  const granted = await session();
  const { page } = await open(t, browser, { ...granted, link: '/ui/' }, { wait: false });
  const input = page.getByRole('textbox', { name: 'Link' });
  await input.fill('https://gateway/ui/#not/a/link');
  await page.keyboard.press('Enter');
  await page.getByText('That is not a link to a session').waitFor();
  await input.fill(`${gateway.origin}${granted.link}`);
  await page.keyboard.press('Enter');
  await new Screen(page).ready();
  await page.reload();
  await page.getByRole('textbox', { name: 'Link' }).waitFor();
});

test('another link opened in the same page takes the place of the first', async (t) => {
  const [first, second] = [await session(), await session('web', { reason: 'the second' })];
  const { page, terminal } = await open(t, browser, first);
  await page.evaluate((link) => (location.hash = link), second.link.replace(/^.*#/, ''));
  await page.locator('#why', { hasText: 'the second' }).waitFor();
  await terminal.ready();
  assert.equal(await page.locator('.panel').count(), 1);
  assert.equal(new URL(page.url()).hash, '');
});

test('a token that is nobody’s opens nothing', async (t) => {
  const token = ['{"alg":"none"}', '{"sub":"system:serviceaccount:drawbridge-sessions:cs-0"}', 'x'].map((part) => Buffer.from(part).toString('base64url')).join('.');
  const { page } = await open(t, browser, { token, link: `/ui/#${namespace}/nothing/${token}` }, { wait: false, allow: [/401/] });
  await page.getByRole('heading', { name: 'This link opens nothing any more' }).waitFor();
});
