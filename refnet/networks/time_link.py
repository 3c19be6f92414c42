"""The link between a 3D body and a head: the average of the frames, their key frame, or none.

Detect-and-Track's `VIDEO.BODY_HEAD_LINK`.
"""

from refnet.errors import require_known
from refnet.net import Net, require_net

LINKS = ("none", "average", "key-frame")


def time_link(net: Net, x: str, link: str, name: str) -> str:
    """Append a link.

    Parameters
    ----------
    net : Net
    x : str
        The blob that it reads, (N, C, T, H, W).
    link : {"none", "average", "key-frame"}
        "average" and "key-frame" leave one frame; the key frame is the middle one, T // 2.
    name : str
        Of the node.

    Returns
    -------
    str
        `name`, or, where there is no link, `x`.

    Raises
    ------
    UnknownNameError
        If the link is none of these.
    """
    require_net(net)
    require_known("time link", link, LINKS)
    if link == "average":
        return net.add("average_pool3d", name, (x,), kernel=(net.shape(x)[2], 1, 1))
    if link == "key-frame":
        return net.add("slice_keyframe", name, (x,))
    return x
