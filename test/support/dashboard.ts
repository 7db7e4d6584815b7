import { readFile } from "node:fs/promises";
import { join } from "node:path";

export const COMPOSE = join(import.meta.dirname, "../../deploy/compose");

/** What one line of a panel asks Prometheus. */
export interface DashboardQuery {
  readonly panel: string;
  readonly expression: string;
  readonly legend: string;
}

export interface Dashboard {
  readonly title: string;
  readonly panels: readonly {
    readonly id: number;
    readonly title: string;
    readonly datasource: { readonly uid: string };
    readonly gridPos: Readonly<Record<"x" | "y" | "w" | "h", number>>;
    readonly targets: readonly {
      readonly expr: string;
      readonly legendFormat?: string;
    }[];
  }[];
}

export async function readDashboard(): Promise<Dashboard> {
  const file = join(COMPOSE, "grafana/dashboards/entrepot.json");
  return JSON.parse(await readFile(file, "utf8")) as Dashboard;
}

export function queriesOf(dashboard: Dashboard): DashboardQuery[] {
  return dashboard.panels.flatMap(({ title, targets }) =>
    targets.map(({ expr, legendFormat = "" }) => ({
      panel: title,
      expression: expr,
      legend: legendFormat,
    })),
  );
}
