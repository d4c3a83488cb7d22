// A state timeline: Grafana's own is not in @grafana/ui, so this draws the like of it, in its colours and type.
import { formattedValueToString, getFieldDisplayName } from '@grafana/data';
import { LegendDisplayMode, useTheme2, VizLegend } from '@grafana/ui';

const NAMES = 130;
const FOOT = 44;

// Neighbouring samples of the same value, as spans of time.
function spans(frame, range) {
  const [{ values: times, config }, { values }] = frame.fields;
  const found = [];
  times.forEach((at, place) => {
    const last = found.at(-1);
    if (last && last.value === values[place] && at - last.to <= config.interval) last.to = at + config.interval;
    else found.push({ value: values[place], from: at, to: at + config.interval });
  });
  return found.map((span) => ({ ...span, to: Math.min(span.to, range.to.valueOf()) }));
}

function Line({ frame, all, range, width, height, theme }) {
  const field = frame.fields[1];
  const length = range.to.valueOf() - range.from.valueOf();
  const x = (at) => (Math.max(at - range.from.valueOf(), 0) / length) * (width - NAMES);
  return (
    <div style={{ display: 'flex', height, alignItems: 'center', ...theme.typography.bodySmall }}>
      <div style={{ width: NAMES - 8, marginRight: 8, textAlign: 'right', overflow: 'hidden' }}>
        {getFieldDisplayName(field, frame, all)}
      </div>
      <div style={{ position: 'relative', width: width - NAMES, height: height * 0.9 }}>
        {spans(frame, range).map(({ value, from, to }) => (
          <div
            key={from}
            style={{
              position: 'absolute', left: x(from), width: Math.max(x(to) - x(from), 1), height: '100%', opacity: 0.7,
              background: field.display(value).color,
            }}
          />
        ))}
      </div>
    </div>
  );
}

export function StateTimeline({ panel, frames, range, width, height }) {
  const theme = useTheme2();
  const rowHeight = Math.min((height - FOOT) / frames.length, 60);
  const ends = [range.from, range.to].map((at) => at.format('HH:mm'));
  const items = (panel.fieldConfig.defaults.mappings ?? []).flatMap(({ options }) =>
    Object.entries(options).map(([value, { text }]) => {
      const shown = frames[0].fields[1].display(Number(value));
      return { label: text ?? formattedValueToString(shown), color: shown.color, yAxis: 1 };
    }),
  );
  return (
    <div>
      {frames.map((frame, place) => (
        <Line key={place} {...{ frame, range, width, theme }} all={frames} height={rowHeight} />
      ))}
      <div style={{ display: 'flex', justifyContent: 'space-between', marginLeft: NAMES, ...theme.typography.bodySmall }}>
        {ends.map((text, place) => <span key={place}>{text}</span>)}
      </div>
      <VizLegend items={items} placement="bottom" displayMode={LegendDisplayMode.List} />
    </div>
  );
}
