"""What the boards have in common: panels, variables, links, and where panels stand. Plain Grafana JSON, nothing invented."""

PROMETHEUS = "prometheus"
POSTGRES = "grafana-postgresql-datasource"
DATASOURCE = "${datasource}"

# A panel's colour by its last value: green from the start, then as told.
OK, WARN, BAD, PLAIN = "green", "orange", "red", "text"

# Short forms of the label matchers that nearly every query has.
MATCHERS = {
    "<all>": 'namespace="$namespace"',
    "<dispatchers>": 'namespace="$namespace",pool=""',
    "<pools>": 'namespace="$namespace",pool=~"$pool"',
    "<worker>": 'namespace="$namespace",instance="$instance"',
}


def matched(text):
    for short, full in MATCHERS.items():
        text = text.replace(short, full)
    return text


def steps(limits, first=OK):
    return {"mode": "absolute", "steps": [{"color": first, "value": None}] + [{"color": c, "value": v} for v, c in limits]}


def panel(kind, title, description, unit, targets, *, width, height, limits=(), first=OK, defaults=None, custom=None, options=None,
          overrides=(), transformations=(), no_value=None, source=PROMETHEUS):
    fields = {"unit": unit, "thresholds": steps(limits, first), "custom": custom or {}, **(defaults or {})}
    if no_value is not None:
        fields["noValue"] = no_value
    datasource = {"type": source, "uid": DATASOURCE}
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": datasource,
        "gridPos": {"w": width, "h": height},
        "targets": [{"refId": chr(ord("A") + i), "datasource": datasource, **target} for i, target in enumerate(targets)],
        "fieldConfig": {"defaults": fields, "overrides": list(overrides)},
        "options": options or {},
        "transformations": list(transformations),
    }


def promql(queries, *, instant=False, table=False):
    """Queries by what their series are called in the legend."""
    return [
        {
            "expr": matched(expr),
            "legendFormat": legend,
            "range": not instant,
            "instant": instant,
            "format": "table" if table else "time_series",
            "editorMode": "code",
        }
        for legend, expr in queries.items()
    ]


def sql(query, *, table=True):
    return [{"rawSql": query.strip(), "rawQuery": True, "editorMode": "code", "format": "table" if table else "time_series"}]


def stat(title, description, unit, targets, *, width=3, height=4, graph=True, colour="background", text="auto", **rest):
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "graphMode": "area" if graph else "none",
        "colorMode": colour,
        "textMode": text,
        "justifyMode": "center",
    }
    defaults = {"color": {"mode": "thresholds"}, **rest.pop("defaults", {})}
    return panel("stat", title, description, unit, targets, width=width, height=height, options=options, defaults=defaults, **rest)


def series(title, description, unit, targets, *, width=8, height=8, stacked=False, bars=False, lowest=0, highest=None, lines=False,
           **rest):
    """Lines over time; `lines` draws the thresholds too."""
    custom = {
        "drawStyle": "bars" if bars else "line",
        "fillOpacity": 60 if bars else 30 if stacked else 8,
        "lineWidth": 1,
        "showPoints": "never",
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
        "thresholdsStyle": {"mode": "line" if lines else "off"},
    }
    defaults = {"color": {"mode": "palette-classic"}, "min": lowest}
    if highest is not None:
        defaults["max"] = highest
    options = {
        "legend": {"displayMode": "table", "placement": "bottom", "showLegend": True, "calcs": ["lastNotNull", "max"]},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return panel("timeseries", title, description, unit, targets, width=width, height=height, custom=custom, options=options,
                 defaults={**defaults, **rest.pop("defaults", {})}, **rest)


def up_and_down(title, description, targets, *, width=12, height=8):
    mapping = {"type": "value", "options": {"0": {"text": "down", "color": BAD, "index": 1}, "1": {"text": "up", "color": OK, "index": 0}}}
    options = {"mergeValues": True, "showValue": "never", "rowHeight": 0.8, "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True}}
    return panel("state-timeline", title, description, "short", targets, width=width, height=height, limits=[(1, OK)], first=BAD,
                 defaults={"color": {"mode": "thresholds"}, "mappings": [mapping]}, custom={"fillOpacity": 80, "lineWidth": 0}, options=options)


def table(title, description, targets, *, width=24, height=8, columns=None, unit="short", sort=None, **rest):
    """A table; `columns` are the units of columns by name."""
    overrides = [
        {"matcher": {"id": "byName", "options": name}, "properties": [{"id": "unit", "value": of}]} for name, of in (columns or {}).items()
    ]
    options = {"showHeader": True, "cellHeight": "sm", "sortBy": [{"displayName": sort, "desc": True}] if sort else []}
    return panel("table", title, description, unit, targets, width=width, height=height, options=options,
                 overrides=overrides + list(rest.pop("overrides", ())), **rest)


def bars(title, description, unit, targets, *, width=8, height=8, field, **rest):
    """A bar for each row; `field` names the bars."""
    options = {"xField": field, "orientation": "auto", "showValue": "auto", "legend": {"displayMode": "list", "placement": "bottom", "showLegend": False},
               "tooltip": {"mode": "single"}}
    return panel("barchart", title, description, unit, targets, width=width, height=height, options=options,
                 defaults={"color": {"mode": "palette-classic"}, "min": 0}, custom={"fillOpacity": 70, "lineWidth": 1}, **rest)


def datasource_variable(kind):
    return {"name": "datasource", "label": "Data source", "type": "datasource", "query": kind, "refresh": 1, "hide": 0}


def label_variable(name, label, query, *, every=None, several=False):
    """A label's values; `every` is what All stands for, if it may be chosen."""
    query = matched(query)
    variable = {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": {"type": PROMETHEUS, "uid": DATASOURCE},
        "query": {"query": query, "refId": name},
        # With the time range: workers come and go.
        "refresh": 2,
        "sort": 1,
        "multi": several,
        "includeAll": every is not None,
    }
    if every is not None:
        variable |= {"allValue": every, "current": {"text": "All", "value": "$__all"}}
    return variable


def sql_variable(name, label, query):
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": {"type": POSTGRES, "uid": DATASOURCE},
        "query": query.strip(),
        "refresh": 2,
        "sort": 0,
        "multi": False,
        "includeAll": False,
    }


def text_variable(name, label, value):
    return {"name": name, "label": label, "type": "textbox", "query": value, "current": {"text": value, "value": value}}


def choice_variable(name, label, values):
    options = [{"text": value, "value": value, "selected": value == values[0]} for value in values]
    return {"name": name, "label": label, "type": "custom", "query": ",".join(values), "options": options, "current": options[0], "multi": False,
            "includeAll": False}


def link(to, title, *, variables):
    """By a tag of its own, so that it works wherever Grafana is served."""
    return {"type": "dashboards", "title": title, "tags": [to], "asDropdown": False, "keepTime": True, "includeVars": variables, "icon": "external link"}


def row(title, *panels, collapsed=False):
    return title, panels, collapsed


def placed(rows):
    """Panels from left to right and top to bottom, in the order they are written."""
    out, y, number = [], 0, 1
    for title, panels, collapsed in rows:
        head = {"type": "row", "title": title, "id": number, "collapsed": collapsed, "gridPos": {"x": 0, "y": y, "w": 24, "h": 1}, "panels": []}
        number, y, x, tallest, body = number + 1, y + 1, 0, 0, []
        for one in panels:
            size = one["gridPos"]
            if x + size["w"] > 24:
                x, y, tallest = 0, y + tallest, 0
            body.append({**one, "id": number, "gridPos": {"x": x, "y": y, **size}})
            number, x, tallest = number + 1, x + size["w"], max(tallest, size["h"])
        y += tallest
        if collapsed:
            head["panels"] = body
            out.append(head)
        else:
            out += [head, *body]
    return out


def board(uid, title, description, *, variables, rows, links, since, refresh):
    return {
        "uid": uid,
        "title": title,
        "description": description,
        "tags": ["dotmask", uid],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "timezone": "browser",
        "time": {"from": since, "to": "now"},
        "refresh": refresh,
        "links": links,
        "annotations": {"list": []},
        "templating": {"list": variables},
        "panels": placed(rows),
    }
