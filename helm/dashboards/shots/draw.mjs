// `node draw.mjs <folder>`: draws each <folder>/<name>.json (see page.jsx) as <folder>/<name>.png, in headless Chromium.
// Run where the packages of package.json are installed; CHROMIUM says where the browser is.
import { createServer } from 'node:http';
import { readdir, readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const installed = createRequire(path.join(process.cwd(), 'package.json'));
const { build } = installed('esbuild');
const { chromium } = installed('playwright-core');

const WIDTH = 1600;
const here = path.dirname(fileURLToPath(import.meta.url));
const modules = path.join(process.cwd(), 'node_modules');

// Where the page's own files are: Grafana's icons, and the fonts that its style sheet names.
const PUBLIC = {
  '/public/build/img/': '@grafana/ui/dist/public/img/',
  '/public/fonts/inter/Inter-Regular.woff2': '@fontsource/inter/files/inter-latin-400-normal.woff2',
  '/public/fonts/inter/Inter-Medium.woff2': '@fontsource/inter/files/inter-latin-500-normal.woff2',
  '/public/fonts/roboto/RobotoMono-Regular.woff2': '@fontsource/roboto-mono/files/roboto-mono-latin-400-normal.woff2',
};
const TYPES = { '.svg': 'image/svg+xml', '.woff2': 'font/woff2' };

async function bundled() {
  const { outputFiles } = await build({
    entryPoints: [path.join(here, 'page.jsx')],
    nodePaths: [modules],
    outdir: '/out',
    bundle: true,
    write: false,
    format: 'esm',
    jsx: 'automatic',
    define: { 'process.env.NODE_ENV': '"production"', global: 'globalThis' },
    loader: { '.woff': 'dataurl', '.woff2': 'dataurl', '.ttf': 'empty', '.svg': 'dataurl', '.png': 'dataurl' },
    logLevel: 'error',
  });
  return Object.fromEntries(outputFiles.map((file) => [path.extname(file.path), file.text]));
}

const page = (shot) => `<!doctype html><html><head><meta charset="utf-8"><link rel="icon" href="data:,"><link rel="stylesheet" href="/page.css"></head>
<body><div id="root"></div><script>window.__grafana_public_path__="/public/";window.SHOT=${shot.replaceAll('<', '\\u003c')}</script>
<script type="module" src="/page.js"></script></body></html>`;

async function served(folder) {
  const parts = await bundled();
  const server = createServer(async (request, response) => {
    const { pathname } = new URL(request.url, 'http://localhost');
    const send = (type, body) => response.setHeader('Content-Type', type).end(body);
    try {
      if (pathname === '/page.js') send('text/javascript', parts['.js']);
      else if (pathname === '/page.css') send('text/css', parts['.css']);
      else if (pathname.startsWith('/public/')) {
        const known = Object.keys(PUBLIC).find((prefix) => pathname.startsWith(prefix));
        const file = path.join(modules, PUBLIC[known], path.normalize(pathname.slice(known.length)));
        send(TYPES[path.extname(pathname)], await readFile(file));
      } else send('text/html', page(await readFile(path.join(folder, `${path.basename(pathname)}.json`), 'utf8')));
    } catch {  // no such file
      response.writeHead(404).end();
    }
  });
  await new Promise((done) => server.listen(0, '127.0.0.1', done));
  return server;
}

async function shoot(browser, address, folder, name) {
  const tab = await browser.newPage({ viewport: { width: WIDTH, height: 900 } });
  const wrong = [];
  tab.on('pageerror', (error) => wrong.push(error.stack ?? error.message));
  tab.on('console', (message) => message.type() === 'error' && wrong.push(`${message.text()} ${message.location().url}`));
  await tab.goto(`${address}/${name}`);
  try {
    await tab.waitForFunction(() => window.HEIGHT, undefined, { timeout: 20_000 });
    await tab.setViewportSize({ width: WIDTH, height: await tab.evaluate(() => window.HEIGHT) });
    await tab.screenshot({ path: path.join(folder, `${name}.png`) });
  } catch (error) {
    wrong.push(error.message);
  }
  await tab.close();
  if (wrong.length > 0) console.error(`${name}:\n  ${wrong.slice(0, 5).join('\n  ')}`);
  return wrong.length === 0;
}

const folder = path.resolve(process.argv[2]);
const names = (await readdir(folder)).filter((name) => name.endsWith('.json')).map((name) => path.basename(name, '.json'));
const server = await served(folder);
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  chromiumSandbox: process.getuid() !== 0,
});
let fine = true;
for (const name of names) fine = (await shoot(browser, `http://127.0.0.1:${server.address().port}`, folder, name)) && fine;
await browser.close();
server.close();
process.exit(fine ? 0 : 1);
