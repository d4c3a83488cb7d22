// What Prometheus answered, as the data frames that Grafana's Prometheus data source makes of it.
import { createDataFrame, FieldType } from '@grafana/data';

const number = (text) => (text === 'NaN' ? null : Number(text.replace('Inf', 'Infinity')));

const legend = (format, labels) =>
  format === '__auto' ? undefined : format.replace(/\{\{\s*(\w+)\s*\}\}/g, (_, label) => labels[label] ?? '');

// One frame for each series: {time, value}. Steps without a value are null, so that lines break where data does.
function series(target, answer, stepMs) {
  return answer.map(({ metric: labels, values, value }) => {
    const points = values ?? [value];
    return createDataFrame({
      refId: target.refId,
      fields: [
        { name: 'Time', type: FieldType.time, config: { interval: stepMs }, values: points.map(([at]) => at * 1000) },
        {
          name: 'Value',
          type: FieldType.number,
          labels,
          config: { displayNameFromDS: legend(target.legendFormat, labels) },
          values: points.map(([, text]) => number(text)),
        },
      ],
    });
  });
}

// One frame of all series: {time, each label, value}.
function table(target, answer, isOnly) {
  const labels = [...new Set(answer.flatMap(({ metric }) => Object.keys(metric)))].sort();
  const column = (name) => ({ name, type: FieldType.string, config: {}, values: answer.map(({ metric }) => metric[name] ?? '') });
  return createDataFrame({
    refId: target.refId,
    fields: [
      { name: 'Time', type: FieldType.time, config: {}, values: answer.map(({ value }) => value[0] * 1000) },
      ...labels.map(column),
      {
        name: isOnly ? 'Value' : `Value #${target.refId}`,
        type: FieldType.number,
        config: {},
        values: answer.map(({ value }) => number(value[1])),
      },
    ],
  });
}

// All frames of a panel. `answers` holds one list of Prometheus' series for each target.
export function frames(panel, answers, stepMs) {
  return panel.targets.flatMap((target, place) => {
    const answer = answers[place];
    if (answer.length === 0) return [];
    return target.format === 'table'
      ? [table(target, answer, panel.targets.length === 1)]
      : series(target, answer, stepMs);
  });
}

// Times at which an annotation begins: the first of neighbouring samples above 0.
export function beginnings(answer, stepMs) {
  return answer.flatMap(({ values }) =>
    values
      .filter(([at, text], place) => {
        const before = values[place - 1];
        return number(text) > 0 && !(before && number(before[1]) > 0 && (at - before[0]) * 1000 <= stepMs);
      })
      .map(([at]) => at * 1000),
  );
}
