// The page around the terminals: tabs, containers, the keyboard alone, a phone, and how it is served.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';

import { launch, open, shot } from './browser.js';
import { session } from './cluster.js';

const browser = await launch();
after(() => browser.close());

test('several terminals are open side by side, as many as the session may have', async (t) => {
  const { page, terminal } = await open(t, browser, await session('web', { maxConnections: 2 }));
  await terminal.line('name=first; echo $name');
  await terminal.until(/^first$/m);
  await page.getByRole('button', { name: 'New terminal' }).click();
  await terminal.ready();
  assert.ok(await page.locator('#new-tab').isDisabled());
  assert.match(await page.locator('#new-tab').getAttribute('title'), /2 connections/);
  await terminal.line('echo "name is <$name>"');
  await terminal.until(/^name is <>$/m);
  await page.getByRole('tab', { name: 'Shell 1' }).click();
  await terminal.line('echo "name is <$name>"');
  await terminal.until(/^name is <first>$/m);
  await shot(page, 'tabs');
  await page.getByRole('button', { name: 'Close Shell 2' }).click();
  assert.equal(await page.getByRole('tab').count(), 1);
  await page.getByRole('button', { name: 'New terminal' }).click();
  await terminal.ready();
});

test('a session that fixes no container lets one choose', async (t) => {
  const { page, terminal } = await open(t, browser, await session('pair'), { wait: false });
  await terminal.card().getByRole('heading', { name: 'Which container?' }).waitFor();
  await shot(page, 'choice');
  await terminal.card().getByRole('button', { name: 'extra-1' }).click();
  await terminal.ready();
  assert.match(await page.locator('#where').textContent(), /\/pair\/extra-1$/);
  await terminal.line('echo in the ex""tra > /tmp/page-choice; cat /tmp/page-choice');
  await terminal.until(/^in the extra$/m);
  await page.getByRole('button', { name: 'New terminal' }).click();
  await terminal.card().getByRole('button', { name: /^main/ }).click();
  await terminal.ready();
  assert.match(await page.locator('#where').textContent(), /\/pair\/main$/);
});

test('a session for one container does not ask', async (t) => {
  const { page } = await open(t, browser, await session('pair', { target: { pod: { name: 'pair' }, container: 'extra-1' } }));
  assert.match(await page.locator('#where').textContent(), /\/pair\/extra-1$/);
});

test('everything is done by the keyboard alone', async (t) => {
  const { page, terminal } = await open(t, browser, await session());
  const focus = () => page.evaluate(() => document.activeElement?.id || document.activeElement?.className);
  await page.keyboard.type('echo ty""ped'); // the terminal has the focus from the start
  await page.keyboard.press('Enter');
  await terminal.until(/^typed$/m);
  await page.keyboard.press('Control+Shift+L');
  assert.equal(await focus(), 'tab-1');
  await page.keyboard.press('Tab');
  assert.equal(await focus(), 'new-tab');
  await page.keyboard.press('Enter');
  await terminal.ready();
  await page.keyboard.type('echo sec""ond');
  await page.keyboard.press('Enter');
  await terminal.until(/^second$/m);
  await page.keyboard.press('Control+Shift+ArrowLeft');
  await terminal.until(/^typed$/m);
  await page.keyboard.press('Control+Shift+L');
  await page.keyboard.press('ArrowRight');
  assert.equal(await focus(), 'tab-2');
  await page.keyboard.press('Delete');
  assert.equal(await page.getByRole('tab').count(), 1);
  await page.keyboard.press('Control+Shift+Slash');
  assert.ok(await page.getByRole('dialog', { name: 'Keys' }).isVisible());
  await page.keyboard.press('Escape');
  await page.keyboard.press('Control+Shift+L');
  for (const id of ['new-tab', 'find', 'copy', 'paste', 'smaller', 'larger', 'screen-reader', 'help']) {
    await page.keyboard.press('Tab');
    assert.equal(await focus(), id);
    const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
    assert.equal(outline, 'solid', `${id} shows that it has the focus`);
  }
});

test('on a phone nothing is cut off, and the keys it lacks are there', async (t) => {
  const { page, terminal } = await open(t, browser, await session('web', { reason: 'a reason that is a good deal longer than any phone is wide, as reasons are' }), {
    viewport: { width: 360, height: 640 },
    hasTouch: true,
    isMobile: true,
    deviceScaleFactor: 2,
    colorScheme: 'dark',
  });
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 360);
  for (const id of ['where', 'who', 'why', 'connection', 'recorded', 'left', 'new-tab', 'find', 'help', 'touch-esc', 'touch-right']) {
    // A long reason is shortened by what holds it.
    const box = await page.locator(id === 'why' ? '.cause' : `#${id}`).boundingBox();
    assert.ok(box !== null && box.x >= 0 && box.x + box.width <= 360, `${id}: ${JSON.stringify(box)}`);
  }
  await terminal.line('echo ph""one; sleep 1000');
  await terminal.until(/^phone$/m);
  await page.getByRole('button', { name: '^C' }).tap();
  await terminal.until(/\^C\n(.*\n)*.*[#$] *$/m);
  await shot(page, 'phone');
  await terminal.line('exit 1');
  await terminal.card().getByText('Exit code 1').waitFor();
  const box = await terminal.card().boundingBox();
  assert.ok(box.x >= 0 && box.x + box.width <= 360, JSON.stringify(box));
  await shot(page, 'phone-end');
});

test('the page is strict about itself, small on the wire, and its files are kept', async (t) => {
  const { page, requests } = await open(t, browser, await session(), { allow: [/trusted/i] });
  let files = 0;
  for (const request of requests) {
    const response = await request.response();
    const headers = await response.allHeaders();
    if (!new URL(request.url()).pathname.startsWith('/ui/')) {
      assert.equal(headers['cache-control'], 'no-store');
      continue;
    }
    files += 1;
    assert.match(headers['content-security-policy'], /default-src 'none'/);
    assert.doesNotMatch(headers['content-security-policy'], /unsafe|\*|http/);
    assert.equal(headers['referrer-policy'], 'no-referrer');
    const asset = request.url().includes('/assets/');
    assert.equal(headers['cache-control'], asset ? 'public, max-age=31536000, immutable' : 'no-cache');
    if (/\.(js|css)$/.test(request.url())) assert.equal(headers['content-encoding'], 'br');
  }
  assert.ok(files >= 3, `${files} files`);
  // Inline code is refused by the browser itself.
  const ran = await page.evaluate(() => {
    const script = Document.prototype.createElement.call(document, 'div');
    try {
      script.innerHTML = '<img src=x onerror="window.ran = true">';
    } catch {
      return 'refused';
    }
    return 'taken';
  });
  assert.equal(ran, 'refused', 'Trusted Types are in force');
});
