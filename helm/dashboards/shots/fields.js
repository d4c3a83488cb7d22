// Field options as Grafana applies them: defaults, overrides, transformations. Grafana's own registry of options lives
// in its application, so the options that our dashboards use are registered here; an unknown one is an error.
import {
  applyFieldOverrides,
  cacheFieldDisplayNames,
  FieldConfigOptionsRegistry,
  standardTransformers,
  standardTransformersRegistry,
  transformDataFrame,
} from '@grafana/data';
import { lastValueFrom } from 'rxjs';

const OPTIONS = ['unit', 'min', 'max', 'decimals', 'color', 'thresholds', 'mappings', 'displayName', 'noValue', 'links'];
const CUSTOM = [
  'drawStyle', 'lineWidth', 'lineStyle', 'fillOpacity', 'fillBelowTo', 'gradientMode', 'showPoints', 'pointSize', 'spanNulls',
  'lineInterpolation', 'stacking', 'thresholdsStyle', 'hideFrom', 'axisSoftMin', 'axisSoftMax', 'axisPlacement', 'axisLabel',
  'scaleDistribution', 'cellOptions', 'width', 'align',
];

const option = (path, isCustom) => ({
  id: isCustom ? `custom.${path}` : path,
  path,
  name: path,
  isCustom,
  process: (value) => value,
  shouldApply: () => true,
});
const registry = new FieldConfigOptionsRegistry(() => [
  ...OPTIONS.map((path) => option(path, false)),
  ...CUSTOM.map((path) => option(path, true)),
]);

const transformers = new Map(Object.values(standardTransformers).map((one) => [one.id, one]));
standardTransformersRegistry.setInit(() =>
  [...transformers.values()].map((transformation) => ({
    id: transformation.id,
    name: transformation.name,
    transformation: () => Promise.resolve(transformation),
    editor: () => null,
    imageDark: '',
    imageLight: '',
  })),
);

function refuseUnknown(panel) {
  const { defaults, overrides } = panel.fieldConfig;
  const { custom = {}, ...plain } = defaults;
  const named = [
    ...Object.keys(plain),
    ...Object.keys(custom).map((key) => `custom.${key}`),
    ...overrides.flatMap(({ properties }) => properties.map(({ id }) => id)),
  ];
  const unknown = named.filter((id) => !registry.getIfExists(id));
  if (unknown.length > 0) throw new Error(`${panel.title}: no such field option here: ${unknown.join(', ')}`);
}

// Frames with each field's colours, units, names and display processor set.
export async function configured(panel, frames, theme) {
  refuseUnknown(panel);
  const context = { interpolate: (text) => text };
  const transformed = await lastValueFrom(transformDataFrame(panel.transformations ?? [], frames, context));
  const found = applyFieldOverrides({
    data: transformed,
    fieldConfig: panel.fieldConfig,
    fieldConfigRegistry: registry,
    replaceVariables: (text) => text,
    theme,
    timeZone: 'utc',
  });
  cacheFieldDisplayNames(found);
  return found;
}
