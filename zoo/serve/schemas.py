"""The forms of requests and answers, which /openapi.json describes."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Scalar = str | int | float | bool | None

_RUNS = (
    "The drawing row by row, as runs of one class: class, count, class, count, … A class is its position in the index' "
    "`classes`, -1 where nothing is drawn; the counts add up to height · width. [-1, 100, 3, 28] is 100 cells of "
    "nothing and then 28 of class 3."
)


class Drawing(BaseModel):
    """What is drawn where, on the grid of the index' maps."""

    model_config = ConfigDict(extra="forbid")

    size: tuple[int, int] = Field(description="[height, width] of the index' maps, its `map_size`", examples=[[64, 64]])
    runs: list[int] = Field(description=_RUNS, max_length=200_000, examples=[[-1, 4000, 3, 96]])


class SearchRequest(BaseModel):
    """What to search by: a drawing, a photo or an item, a drawing over either, words, or nothing.

    A drawing alone: only its classes count, and where one isn't drawn it is asked to be absent. Over a photo or an
    item: what is drawn replaces what is there. Words: hits are ranked by how many of them their captions hold, ties by
    all else. Nothing: the images, oldest first (milvus: in any order).
    """

    model_config = ConfigDict(extra="forbid")

    drawing: Drawing | None = Field(None, description="For an index of probability maps")
    photo: str | None = Field(None, description="The token that POST /api/photos gave", max_length=200)
    item: str | None = Field(None, description="The id of an item, which isn't found by itself", max_length=4096)
    text: str = Field("", description="Words to look for in captions", max_length=500)
    k: Annotated[int, Field(ge=1, strict=True)] | None = Field(
        None, description="Hits to give; null = what the server is set to"
    )
    offset: int = Field(
        0, ge=0, strict=True, description="Hits to leave out at the front, to go on behind those already there"
    )
    where: dict[str, Scalar | list[Scalar]] | None = Field(
        None,
        description="Only images whose payload has this value, or one of a list of values, under each key",
        max_length=20,
        examples=[{"label": ["cat", "dog"]}],
    )
    rerankers: list[str] | None = Field(
        None, description="Which of the server's re-rankers to use; null = all, none with text", max_length=20
    )
    explain: bool = Field(False, description="Tell of each hit what every class adds to its distance")


class Contribution(BaseModel):
    """What a class adds to the squared distance of a hit: the more, the less the hit is as asked."""

    model_config = ConfigDict(populate_by_name=True)

    number: int = Field(alias="class", description="Position in the index' `classes`")
    name: str
    distance: float
    share: float = Field(description="Of the whole distance, 0 … 1")


class Hit(BaseModel):
    """An image that was found."""

    rank: int = Field(description="From 1")
    id: str
    score: float | None = Field(description="Higher is nearer; null where nothing was compared")
    distance: float | None = Field(description="Squared distance of probability maps, 0 = the same; else null")
    thumbnail: str | None = Field(description="Where its small picture is; null where no picture is known")
    label: str | None = None
    captions: list[str] | None = None
    width: int | None = Field(None, description="px of the whole picture")
    height: int | None = Field(None, description="px of the whole picture")
    words: int | None = Field(None, description="How many of the query's words its captions hold")
    inliers: int | None = Field(None, description="Points that agree, of a geometric re-ranker")
    box: list[float] | None = Field(None, description="What was found: x0, y0, x1, y1 px of the whole picture")
    contributions: list[Contribution] | None = Field(None, description="With `explain`, the largest first")


class SearchAnswer(BaseModel):
    """Hits, nearest first."""

    hits: list[Hit]
    more: bool = Field(description="Whether there are further hits, to be had with a larger `offset`")
    images: int = Field(description="Images of the index")
    milliseconds: float = Field(description="Of the search alone")
    rerankers: list[str] = Field(description="Those that were used")


class Class(BaseModel):
    """A class that can be drawn."""

    name: str
    colour: str = Field(description="#rrggbb")


class IndexAnswer(BaseModel):
    """What the server searches, and how it can be asked."""

    name: str
    index: str | None = Field(description="Kind of index")
    model: str | None = Field(description="Name of the model that described the images")
    images: int
    needs: list[str] = Field(description="What of a representation is compared")
    classes: list[Class] | None = Field(description="What can be drawn; null for an index of another kind")
    map_size: tuple[int, int] | None = Field(description="[height, width] of drawings")
    captions: bool = Field(description="Whether images have captions, so that words find them")
    pictures: bool = Field(description="Whether there are thumbnails")
    photos: bool = Field(description="Whether photos can be sent")
    rerankers: list[str]
    k: int
    most: int = Field(description="The last rank that can be asked for")
    upload_bytes: int


class PhotoAnswer(BaseModel):
    """A photo that can be searched by."""

    token: str = Field(description="For `photo` of a search; the same for the same bytes")
    width: int = Field(description="px")
    height: int = Field(description="px")


class MapAnswer(BaseModel):
    """An item's most probable classes, in the form of a drawing."""

    size: tuple[int, int] = Field(description="[height, width]")
    runs: list[int] = Field(description=_RUNS)


class ErrorDetail(BaseModel):
    """What breaks which rule."""

    argument: str
    rule: str
    got: str
    message: str = Field(description="All of it in one sentence")


class ErrorAnswer(BaseModel):
    """A request that wasn't served."""

    error: ErrorDetail
