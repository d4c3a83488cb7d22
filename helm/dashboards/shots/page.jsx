// One dashboard on one page. `window.SHOT` holds {dashboard, answers, annotations, variables, from, to, step}; `window.HEIGHT`
// is set once all is drawn.
import { createTheme, dateTimeForTimeZone, EventBusSrv, ThemeContext } from '@grafana/data';
import { GlobalStyles, PanelChrome, PanelContextProvider } from '@grafana/ui';
import { useEffect } from 'react';
import { createRoot } from 'react-dom/client';

import { configured } from './fields.js';
import { beginnings, frames } from './frames.js';
import { KINDS } from './panels.jsx';

const CELL = 30;
const GAP = 8;
const HEAD = 88;

const theme = createTheme({ colors: { mode: 'dark' } });
const { dashboard, answers, annotations, variables, from, to, step } = window.SHOT;
const at = (seconds) => dateTimeForTimeZone('utc', seconds * 1000);
const range = { from: at(from), to: at(to), raw: { from: at(from), to: at(to) } };

// Grafana's grid: 24 columns, cells of 30 pixels, gaps of 8.
function place({ x, y, w, h }, width) {
  const column = (width - 2 * GAP - 23 * GAP) / 24;
  return {
    left: GAP + x * (column + GAP),
    top: HEAD + y * (CELL + GAP),
    width: w * column + (w - 1) * GAP,
    height: h * CELL + (h - 1) * GAP,
  };
}

const bottom = () => {
  const ends = dashboard.panels.map(({ gridPos }) => gridPos.y + gridPos.h);
  return HEAD + Math.max(...ends) * (CELL + GAP);
};

function marks() {
  return dashboard.annotations.list.flatMap(({ iconColor }, which) =>
    beginnings(annotations[which], step * 1000).map((time) => ({ at: time, color: theme.visualization.getColorByName(iconColor) })),
  );
}

// Grafana's `No data`, or what the panel says in its place.
const NoData = ({ panel, width, height }) => (
  <div style={{ width, height, display: 'grid', placeContent: 'center', color: theme.colors.text.secondary }}>
    {panel.fieldConfig.defaults.noValue ?? 'No data'}
  </div>
);

const named = (title) => title.replace(/\$(\w+)/g, (whole, name) => variables[name] ?? whole);

function Panel({ panel, data, shownMarks, box }) {
  const kind = KINDS[panel.type];
  const Drawn = data.length === 0 ? NoData : kind.Component;
  const note = kind.isOurs ? <span style={{ ...theme.typography.bodySmall, opacity: 0.5 }}>drawn without Grafana</span> : undefined;
  return (
    <div style={{ position: 'absolute', ...box }}>
      <PanelChrome title={named(panel.title)} description={panel.description} width={box.width} height={box.height} titleItems={note}>
        {(width, height) => <Drawn panel={panel} frames={data} range={range} marks={shownMarks} width={width} height={height} />}
      </PanelChrome>
    </div>
  );
}

function Heading({ title, box }) {
  return (
    <div style={{ position: 'absolute', ...box, display: 'flex', alignItems: 'center', gap: 8, ...theme.typography.h6 }}>
      <span style={{ transform: 'rotate(90deg)', color: theme.colors.text.secondary }}>›</span>
      {title}
    </div>
  );
}

function Top() {
  const chip = { padding: '4px 8px', border: `1px solid ${theme.colors.border.medium}`, borderRadius: 2 };
  const shown = dashboard.templating.list.map(({ label, name }) => [label, variables[name] ?? 'All']);
  return (
    <div style={{ position: 'absolute', left: GAP * 2, right: GAP * 2, top: 10, color: theme.colors.text.primary }}>
      <div style={{ display: 'flex', justifyContent: 'space-between', ...theme.typography.h4 }}>
        <span>{dashboard.title}</span>
        <span style={theme.typography.body}>
          {range.from.format('YYYY-MM-DD HH:mm')} to {range.to.format('HH:mm')} UTC
        </span>
      </div>
      <div style={{ display: 'flex', gap: 16, marginTop: 8, ...theme.typography.bodySmall }}>
        {shown.map(([label, value]) => (
          <span key={label} style={{ color: theme.colors.text.secondary }}>
            <span style={{ ...chip, background: theme.colors.background.secondary }}>{label}</span>
            <span style={{ ...chip, color: theme.colors.text.primary }}>{value}</span>
          </span>
        ))}
      </div>
    </div>
  );
}

// Charts draw on a canvas after their effects, and icons are fetched: no event says that the last of them is done.
const SETTLED_MS = 1500;

function Page({ data }) {
  const shownMarks = marks();
  useEffect(() => {
    setTimeout(() => (window.HEIGHT = bottom()), SETTLED_MS);
  }, []);
  return (
    <ThemeContext.Provider value={theme}>
      <PanelContextProvider value={{ eventsScope: 'shots', eventBus: new EventBusSrv() }}>
        <GlobalStyles />
        <Top />
        {dashboard.panels.map((panel) => {
          const box = place(panel.gridPos, window.innerWidth);
          return panel.type === 'row'
            ? <Heading key={panel.id} title={named(panel.title)} box={box} />
            : <Panel key={panel.id} panel={panel} data={data[panel.id]} shownMarks={shownMarks} box={box} />;
        })}
      </PanelContextProvider>
    </ThemeContext.Provider>
  );
}

async function draw() {
  const data = {};
  for (const panel of dashboard.panels.filter(({ type }) => type !== 'row')) {
    data[panel.id] = await configured(panel, frames(panel, answers[panel.id], step * 1000), theme);
  }
  await Promise.all(['400', '500'].map((weight) => document.fonts.load(`${weight} 14px Inter`)));
  createRoot(document.getElementById('root')).render(<Page data={data} />);
}

draw().catch((error) => console.error(error));
