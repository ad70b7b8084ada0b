"""Dagster's web UI, at /reports/ the store's reports, at /curves/ the curves: one port, so that one SSH tunnel shows all.

Reports are read and curves drawn as they are asked for, from a store in a folder as on S3. A program of its own, for
`mech ui` as for a server: `python -m mech_pipeline.assets.serving.web --workspace workspace.yaml`.
"""

import argparse
from pathlib import PurePosixPath

import uvicorn
from dagster import DagsterInstance
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster_webserver.version import __version__
from dagster_webserver.webserver import DagsterWebserver
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from mech_pipeline.assets.serving.figures import curves_page, curves_png
from mech_pipeline.project import REPORT_INDEX, Project, find_project
from mech_pipeline.store.files.open import open_files

_SECONDS_FOR_OPEN_PAGES = 1
_FRESH = {"Cache-Control": "no-store"}


def serve(host: str, port: int, workspace: str) -> None:
    """Serves until a signal ends it.

    Args:
        workspace: a file that says where the code server is.
    """
    with (
        DagsterInstance.get() as instance,
        WorkspaceProcessContext(instance, WorkspaceFileTarget([workspace]), version=__version__) as context,
    ):
        instance.optimize_for_webserver(statement_timeout=15000, pool_recycle=3600, max_overflow=20)
        app = with_pages(DagsterWebserver(context).create_asgi_app(), find_project())
        uvicorn.run(app, host=host, port=port, log_level="warning", timeout_graceful_shutdown=_SECONDS_FOR_OPEN_PAGES)


def with_pages(app: Starlette, project: Project) -> Starlette:
    """Dagster's app, which answers /reports/ and /curves/ before it takes a path for a page of its own."""
    folder, index = PurePosixPath(REPORT_INDEX).parent, PurePosixPath(REPORT_INDEX).name

    def report(request: Request) -> Response:
        name, files = request.path_params.get("name", index), open_files(project.store)
        if PurePosixPath(name).suffix != ".html" or files.info(f"{folder}/{name}") is None:
            return PlainTextResponse("There is no such report (yet). `mech ls` lists the experiments.", status_code=404)
        return Response(files.read(f"{folder}/{name}"), media_type="text/html", headers=_FRESH)

    def curves(request: Request) -> Response:
        png = curves_png(project.store, request.path_params["name"], project.mechanisms)
        if png is None:
            return PlainTextResponse("Nothing of this experiment is trained yet.", status_code=404)
        return Response(png, media_type="image/png", headers=_FRESH)

    def page(request: Request) -> Response:
        return HTMLResponse(curves_page(request.path_params["name"]))

    app.router.routes[:0] = [
        Route("/reports", report),
        Route("/reports/", report),
        Route("/reports/{name}", report),
        Route("/curves/{name}.png", curves),
        Route("/curves/{name}", page),
    ]
    return app


def main() -> None:
    """Reads the command line."""
    asked = argparse.ArgumentParser(description="Dagster's web UI, with reports and curves beside it")
    asked.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; only this machine reaches the default"
    )
    asked.add_argument("--port", type=int, default=3000)
    asked.add_argument("--workspace", required=True, help="file that says where the code server is")
    given = asked.parse_args()
    serve(given.host, given.port, given.workspace)


if __name__ == "__main__":
    main()
