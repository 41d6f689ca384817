"""The addresses of the API and of the page."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import quote

from fastapi import FastAPI, File, Query, Request, Response, UploadFile

from zoo.serve import metrics, thumbnails
from zoo.serve.problems import Refused
from zoo.serve.schemas import ErrorAnswer, IndexAnswer, MapAnswer, PhotoAnswer, SearchAnswer, SearchRequest

if TYPE_CHECKING:
    from zoo.serve.service import Service

ERRORS: dict[int | str, dict[str, Any]] = {"4XX": {"model": ErrorAnswer}, "503": {"model": ErrorAnswer}}
_TYPES = {".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".svg": "image/svg+xml"}
_SIZES = "320 or 960 px on the longer side"


def add_routes(app: FastAPI, service: Service) -> None:
    """Adds everything."""
    _add_searches(app, service)
    _add_items(app, service)
    _add_health(app, service)
    _add_page(app)


def _add_searches(app: FastAPI, service: Service) -> None:
    pictures = service.described["pictures"]

    @app.get("/api/index", response_model=IndexAnswer, summary="What is searched, and how it can be asked")
    async def index() -> dict[str, Any]:
        return service.described

    @app.post("/api/search", response_model=SearchAnswer, response_model_exclude_unset=True, summary="Search")
    async def search(request: SearchRequest) -> dict[str, Any]:
        answer = await service.searches.run(service.search, request)
        for hit in answer.hits:
            hit["thumbnail"] = f"/api/thumbnails/{quote(hit['id'], safe='')}" if pictures else None
        about = {"images": len(service.engine), "milliseconds": answer.milliseconds, "rerankers": answer.rerankers}
        return {"hits": answer.hits, "more": answer.more, **about}

    @app.post("/api/photos", response_model=PhotoAnswer, summary="Send a photo to search by")
    async def photos(photo: Annotated[UploadFile, File(description="JPEG, PNG, WebP, GIF or BMP")]) -> dict[str, Any]:
        """Decodes the photo, lets the index' model describe it, and keeps the description, not the photo.

        The token is forgotten once many newer photos have come; then the photo is sent again.
        """
        most = int(service.settings.upload_mb * 1e6)
        content = await photo.read(most + 1)
        if len(content) > most:
            raise Refused(413, "photo", f"have at most {most} bytes", f"more than {most}")
        return await service.uploads.run(service.take_photo, content)


def _add_items(app: FastAPI, service: Service) -> None:
    @app.get(
        "/api/thumbnails/{id:path}",
        response_class=Response,
        responses={200: {"content": {thumbnails.MEDIA_TYPE: {}}}, 304: {"description": "It hasn't changed"}},
        summary="An item's picture, small",
    )
    async def thumbnail(
        id: str,
        request: Request,
        size: Annotated[Literal["small", "large"], Query(description="320 or 960 px")] = "small",
    ) -> Response:
        _, payload = service.engine.picture_of(id)
        tag = f'"{service.thumbnails.tag(payload, size)}"'
        headers = {"ETag": tag, "Cache-Control": "private, max-age=3600"}
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        content = await service.pictures.run(service.thumbnails.make, id, payload, size)
        return Response(content, media_type=thumbnails.MEDIA_TYPE, headers=headers)

    @app.get("/api/items/{id:path}/map", response_model=MapAnswer, summary="An item's map, to draw over")
    async def item_map(id: str) -> dict[str, Any]:
        return await service.searches.run(service.map_of, id)


def _add_health(app: FastAPI, service: Service) -> None:
    @app.head("/healthz", include_in_schema=False)
    @app.get("/healthz", summary="Whether the server is there")
    async def health() -> dict[str, Any]:
        return {"status": "ok", "images": len(service.engine)}

    @app.get("/metrics", response_class=Response, summary="Counters of the process that answers, for Prometheus")
    async def counters() -> Response:
        return Response(service.metrics_text(), media_type=metrics.MEDIA_TYPE)


def _add_page(app: FastAPI) -> None:
    """Adds the files of the page, which are read once: no name of a request reaches the file system."""
    folder = Path(__file__).parent / "static"
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix in _TYPES}
    tags = {name: f'"{hashlib.sha256(content).hexdigest()[:24]}"' for name, content in files.items()}

    def answer(name: str, request: Request) -> Response:
        if name not in files:
            raise Refused(404, "path", "be a file of the page", name)
        headers = {"ETag": tags[name], "Cache-Control": "no-cache"}
        if tags[name] in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(files[name], media_type=_TYPES[Path(name).suffix], headers=headers)

    @app.get("/", include_in_schema=False)
    async def page(request: Request) -> Response:
        return answer("index.html", request)

    @app.get("/static/{name:path}", include_in_schema=False)
    async def static(name: str, request: Request) -> Response:
        return answer(name, request)
