"""x"""


def html(title, net, measured): ...
