// Which of Grafana's components draws which kind of panel.
import { getDisplayValueAlignmentFactors, getFieldDisplayValues } from '@grafana/data';
import { BarGauge, BigValue, TimeSeries, useTheme2, VizRepeater } from '@grafana/ui';
import { TableNG } from '@grafana/ui/unstable';
import { useLayoutEffect } from 'react';

import { StateTimeline } from './timeline.jsx';

// Lines where something happened, as Grafana draws annotations.
function Annotations({ config, marks }) {
  useLayoutEffect(() => {
    config.addHook('draw', (plot) => {
      const { ctx, bbox } = plot;
      ctx.save();
      ctx.setLineDash([5, 5]);
      ctx.lineWidth = 2;
      for (const { at, color } of marks) {
        const x = plot.valToPos(at, 'x', true);
        if (x < bbox.left || x > bbox.left + bbox.width) continue;
        ctx.strokeStyle = ctx.fillStyle = color;
        ctx.beginPath();
        ctx.moveTo(x, bbox.top);
        ctx.lineTo(x, bbox.top + bbox.height);
        ctx.stroke();
        ctx.beginPath();
        ctx.moveTo(x - 5, bbox.top + bbox.height + 6);
        ctx.lineTo(x + 5, bbox.top + bbox.height + 6);
        ctx.lineTo(x, bbox.top + bbox.height);
        ctx.fill();
      }
      ctx.restore();
    });
  }, [config, marks]);
  return null;
}

function Lines({ panel, frames, range, marks, width, height }) {
  return (
    <TimeSeries frames={frames} timeRange={range} timeZone="utc" width={width} height={height} legend={panel.options.legend}>
      {(config) => <Annotations config={config} marks={marks} />}
    </TimeSeries>
  );
}

function useValues(panel, frames, sparkline) {
  const theme = useTheme2();
  const { reduceOptions } = panel.options;
  const replaceVariables = (text) => text;
  const shown = { reduceOptions, fieldConfig: panel.fieldConfig, replaceVariables, theme, sparkline, timeZone: 'utc' };
  return () => getFieldDisplayValues({ ...shown, data: frames });
}

function Stat({ panel, frames, width, height }) {
  const theme = useTheme2();
  const { colorMode, graphMode, justifyMode, textMode, orientation, text } = panel.options;
  const draw = ({ value, alignmentFactors, count, ...size }) => (
    <BigValue
      {...{ colorMode, graphMode, justifyMode, textMode, text, theme, count, alignmentFactors }}
      width={size.width} height={size.height} value={value.display} sparkline={value.sparkline}
    />
  );
  return (
    <VizRepeater
      getValues={useValues(panel, frames, graphMode !== 'none')}
      getAlignmentFactors={(values) => getDisplayValueAlignmentFactors(values)}
      renderValue={draw} renderCounter={0} source={frames} autoGrid
      width={width} height={height} orientation={orientation}
    />
  );
}

function Bars({ panel, frames, width, height }) {
  const theme = useTheme2();
  const { options } = panel;
  const draw = ({ value, alignmentFactors, ...size }) => (
    <BarGauge
      theme={theme} width={size.width} height={size.height} orientation={size.orientation} alignmentFactors={alignmentFactors}
      field={value.field} display={value.view?.getFieldDisplayProcessor(value.colIndex)} value={value.display}
      displayMode={options.displayMode} showUnfilled={options.showUnfilled} valueDisplayMode={options.valueMode}
      namePlacement={options.namePlacement} text={options.text}
    />
  );
  return (
    <VizRepeater
      getValues={useValues(panel, frames, false)}
      getAlignmentFactors={(values) => getDisplayValueAlignmentFactors(values)}
      renderValue={draw} renderCounter={0} source={frames} itemSpacing={8}
      width={width} height={height} orientation={options.orientation}
      minVizWidth={options.minVizWidth} minVizHeight={options.minVizHeight} maxVizHeight={options.maxVizHeight}
    />
  );
}

function Rows({ panel, frames, range, width, height }) {
  const { cellHeight, showHeader, sortBy } = panel.options;
  return (
    <TableNG
      data={frames[panel.options.frameIndex ?? 0]} width={width} height={height} noHeader={!showHeader} cellHeight={cellHeight}
      sortBy={sortBy} timeRange={range} fieldConfig={panel.fieldConfig} structureRev={1} enableVirtualization={false}
    />
  );
}

export const KINDS = {
  timeseries: { Component: Lines },
  stat: { Component: Stat },
  bargauge: { Component: Bars },
  table: { Component: Rows },
  // Not in @grafana/ui.
  'state-timeline': { Component: StateTimeline, isOurs: true },
};
