"""The published schemas of the built-in types, for a validator that is not ours."""

from __future__ import annotations

from lxml import etree

REQUEST = "http://schemas.microsoft.com/2003/print/asyncui/v1/request"
RESPONSE = "http://schemas.microsoft.com/2003/print/asyncui/v1/response"
BIDI = "http://schemas.microsoft.com/windows/2005/03/printing/bidi"

TEXT = """
<xs:complexType name="text" mixed="true">
  <xs:sequence>
    <xs:element name="parameter" minOccurs="0" maxOccurs="unbounded">
      <xs:complexType><xs:simpleContent><xs:extension base="xs:string">
        <xs:attribute name="type"/>
        <xs:attribute name="stringID" type="xs:integer"/>
        <xs:attribute name="resourceDll" type="xs:string"/>
      </xs:extension></xs:simpleContent></xs:complexType>
    </xs:element>
  </xs:sequence>
  <xs:attribute name="stringID" type="xs:integer"/>
  <xs:attribute name="resourceDll" type="xs:string"/>
</xs:complexType>
<xs:attributeGroup name="code">
  <xs:attribute name="dll" type="xs:string" use="required"/>
  <xs:attribute name="entrypoint" type="xs:string" use="required"/>
</xs:attributeGroup>
<xs:simpleType name="either">
  <xs:restriction base="xs:string">
    <xs:enumeration value="true"/><xs:enumeration value="false"/>
  </xs:restriction>
</xs:simpleType>
"""
BALLOON = """
<xs:element name="balloonUI"><xs:complexType>
  <xs:sequence>
    <xs:element name="title" type="text"/>
    <xs:element name="body" type="text" maxOccurs="unbounded"/>
    <xs:element name="action" minOccurs="0">
      <xs:complexType><xs:simpleContent><xs:extension base="xs:string">
        <xs:attributeGroup ref="code"/>
      </xs:extension></xs:simpleContent></xs:complexType>
    </xs:element>
  </xs:sequence>
  <xs:attribute name="iconID" type="xs:integer"/>
  <xs:attribute name="resourceDll" type="xs:string"/>
</xs:complexType></xs:element>
"""
MESSAGE_BOX = r"""
<xs:element name="messageBoxUI"><xs:complexType><xs:sequence>
  <xs:element name="title" type="text"/>
  <xs:element name="bitmap" minOccurs="0"><xs:complexType>
    <xs:attribute name="bitmapID" type="xs:integer" use="required"/>
    <xs:attribute name="resourceDll" type="xs:string"/>
  </xs:complexType></xs:element>
  <xs:element name="body" type="text" maxOccurs="unbounded"/>
  <xs:element name="buttons"><xs:complexType><xs:sequence>
    <xs:element name="button" maxOccurs="5"><xs:complexType>
      <xs:attribute name="stringID" type="xs:integer"/>
      <xs:attribute name="resourceDll" type="xs:string"/>
      <xs:attribute name="buttonID" use="required"><xs:simpleType>
        <xs:restriction base="xs:string">
          <xs:pattern value="IDOK|IDCANCEL|\s*(\-|\+)?[0-9]+\s*"/>
        </xs:restriction>
      </xs:simpleType></xs:attribute>
    </xs:complexType></xs:element>
  </xs:sequence></xs:complexType></xs:element>
</xs:sequence></xs:complexType></xs:element>
"""
CUSTOM = """
<xs:element name="customUI">
  <xs:complexType><xs:simpleContent><xs:extension base="xs:string">
    <xs:attributeGroup ref="code"/>
    <xs:attribute name="bidi" type="either" use="required"/>
  </xs:extension></xs:simpleContent></xs:complexType>
</xs:element>
<xs:element name="customData"><xs:complexType>
  <xs:attributeGroup ref="code"/>
  <xs:attribute name="bidi" type="either" use="required"/>
</xs:complexType></xs:element>
"""
NOTIFICATION = r"""
<xs:element name="Notification"><xs:complexType>
  <xs:choice maxOccurs="unbounded">
    <xs:element name="Schema"><xs:complexType>
      <xs:choice>
        <xs:element name="BIDI_STRING" type="xs:string"/>
        <xs:element name="BIDI_TEXT" type="xs:string"/>
        <xs:element name="BIDI_ENUM" type="xs:string"/>
        <xs:element name="BIDI_INT" type="xs:integer"/>
        <xs:element name="BIDI_FLOAT" type="xs:float"/>
        <xs:element name="BIDI_BOOL" type="xs:boolean"/>
        <xs:element name="BIDI_BLOB" type="xs:base64Binary"/>
      </xs:choice>
      <xs:attribute name="name" use="required"><xs:simpleType>
        <xs:restriction base="xs:string">
          <xs:pattern value="\\\w+(\.\w+)*\:\w+"/>
        </xs:restriction>
      </xs:simpleType></xs:attribute>
    </xs:complexType></xs:element>
    <xs:element name="ReducedSchema"><xs:complexType>
      <xs:attribute name="name" use="required"><xs:simpleType>
        <xs:restriction base="xs:string">
          <xs:pattern value="\\(\w+(\.\w+)*(\:\w+)?)?"/>
        </xs:restriction>
      </xs:simpleType></xs:attribute>
    </xs:complexType></xs:element>
  </xs:choice>
  <xs:attribute name="printerName" type="xs:string" use="required"/>
</xs:complexType></xs:element>
"""


def nested(*names: str, inside: str) -> str:
    """Elements in each other, the last one holding ``inside``."""
    for name in reversed(names):
        inside = (
            f'<xs:element name="{name}"><xs:complexType><xs:sequence>{inside}'
            "</xs:sequence></xs:complexType></xs:element>"
        )
    return inside


def schema(namespace: str, inside: str) -> etree.XMLSchema:
    """A validator of documents in this namespace."""
    return etree.XMLSchema(
        etree.fromstring(
            f'<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema" xmlns="{namespace}" '
            f'targetNamespace="{namespace}" elementFormDefault="qualified">{inside}</xs:schema>'
        )
    )


REQUESTS = schema(
    REQUEST,
    TEXT
    + nested(
        "asyncPrintUIRequest",
        "v1",
        "requestOpen",
        inside=f"<xs:choice>{BALLOON}{MESSAGE_BOX}{CUSTOM}</xs:choice>",
    ),
)
REPLIES = schema(
    RESPONSE,
    nested(
        "asyncPrintUIResponse",
        "v1",
        "requestClose",
        inside='<xs:choice><xs:element name="CustomUI" type="xs:string"/>'
        + nested("messageBoxUI", inside='<xs:element name="buttonID" type="xs:integer"/>')
        + "</xs:choice>",
    ),
)
CONFIGURATIONS = schema(BIDI, NOTIFICATION)


def faults(data: bytes, schema: etree.XMLSchema) -> str:
    """What the validator finds in a document; empty where it is valid."""
    document = etree.fromstring(data, etree.XMLParser(encoding="UTF-16LE"))
    schema.validate(document)
    return "; ".join(str(entry.message) for entry in schema.error_log)
